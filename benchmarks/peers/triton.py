"""Triton from the package nvidia-pytriton, which brings the server and its Python backend, but none for ONNX.

So ONNX Runtime runs inside of the backend's process, with everybody's options. The server is started and stopped by
its own process id, without PyTriton's parent.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.base import (
    JPEG,
    MODEL,
    ROOT,
    TENSOR,
    Command,
    Format,
    Peer,
    Place,
    Request,
    Served,
    v2_answer,
    v2_binary,
)

IMAGES = "images"  # the second model: takes JPEG files
SERVER = "tritonserver"
STUB = "triton_python_backend_stub"


def _command(place: Place) -> Command:
    packages, libraries = _where(place.python)
    home = place.python.parents[1] / SERVER  # beside the environment: it is copied once
    stub = home / "backends" / "python" / STUB
    if not stub.exists():
        partial = home.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(packages / "pytriton" / SERVER, partial)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copy(partial / "python_backend_stubs" / version / STUB, partial / "backends" / "python" / STUB)
        shutil.rmtree(home, ignore_errors=True)
        partial.rename(home)
    models = place.folder / "models"
    for name in (MODEL, IMAGES):
        (models / name / "1").mkdir(parents=True, exist_ok=True)
        (models / name / "config.pbtxt").write_text(config(name, place.served))
        (models / name / "1" / "model.py").write_text(
            f"import sys\n\nsys.path[:0] = {[str(packages), str(ROOT)]}\n\n"  # its interpreter reads no PYTHONPATH
            "from benchmarks.peers.apps.triton_app import TritonPythonModel\n"
        )
    words = (
        str(home / "bin" / SERVER),
        f"--model-repository={models}",
        f"--backend-directory={home / 'backends'}",
        "--http-address=127.0.0.1",
        f"--http-port={place.port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
    )
    # This interpreter's own library first: the stub would find the system's of another patch level.
    return Command(words, {"LD_LIBRARY_PATH": f"{libraries}:{packages / 'nvidia_pytriton.libs'}"})


def _where(python: Path) -> tuple[Path, str]:
    """The environment's packages and the folder of its interpreter's library."""
    ask = "import json, sysconfig as s; print(json.dumps([s.get_path('purelib'), s.get_config_var('LIBDIR')]))"
    packages, libraries = json.loads(subprocess.run([python, "-c", ask], capture_output=True, check=True).stdout)
    return Path(packages), str(libraries)


def config(name: str, served: Served) -> str:
    """A model's configuration; with a limit it has the dynamic batcher's queue, which alone knows time-outs."""
    limited = served.limit_ms is not None
    shape = served.shape[1:] if limited else served.shape
    kind, dims = ("TYPE_STRING", "[1]") if name == IMAGES else ("TYPE_FP32", str(list(shape)))
    lines = [
        f'name: "{name}"',
        'backend: "python"',
        f"max_batch_size: {1 if limited else 0}",
        f'input [{{ name: "{served.input}" data_type: {kind} dims: {dims} }}]',
        f'output [{{ name: "y" data_type: TYPE_FP32 dims: {[served.outputs] if limited else [1, served.outputs]} }}]',
        "instance_group [{ kind: KIND_CPU count: 1 }]",
    ]
    if served.limit_ms is not None:
        lines.append(
            "dynamic_batching { default_queue_policy { timeout_action: REJECT "
            f"default_timeout_microseconds: {round(served.limit_ms * 1e3)} allow_timeout_override: true "
            f"max_queue_size: {served.most_waiting} }} }}"
        )
    return "\n".join(lines) + "\n"


def _binary(content: bytes, kind: str, served: Served) -> Request:
    if kind == TENSOR:
        return v2_binary(f"/v2/models/{MODEL}/infer", content, served, {})
    framed = len(content).to_bytes(4, "little") + content
    one = {
        "name": served.input,
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(framed)},
    }
    head = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request(f"/v2/models/{IMAGES}/infer", headers, head + framed)


PEER = Peer(
    "triton",
    "nvidia-pytriton",
    ("nvidia-pytriton==0.7.0", "numpy==1.26.4"),
    _command,
    f"/v2/models/{MODEL}/ready",
    (Format("V2 binary", _binary, v2_answer, (TENSOR, JPEG)),),
    "queue policy of the dynamic batcher: REJECT after the time-out, bounded queue",
)
