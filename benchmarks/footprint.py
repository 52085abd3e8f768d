"""How much memory does an idle runtime take beside its modes, and how soon after its start does it answer?

Memory is resident, of the process alone, as the kernel counts it (`VmRSS`); what modes take is what a daemon with five
takes more than one with a simulated engine, which loads neither ONNX Runtime nor a model. Times are from the call of
exec to the first `ready`, or to the end of a command.
"""

import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.bundles import write
from benchmarks.common import ROOT, Arguments, Measured, at_most, reported, run
from benchmarks.networks import make
from wenet_runtime.bundle import Bundle
from wenet_runtime.bundle_files import write_bundle

QUESTION = "How much memory does an idle runtime take beside its modes, and how soon does it answer?"
FIVE = ("g1", "g2", "g4", "g8", "g16")
STARTS = 5
MB = 1024.0
IMPORTS = {  # by what stands for it: a daemon loads all of it
    "python": "",
    "numpy": "import numpy",
    "onnxruntime": "import numpy, onnxruntime",
    "service": "import wenet_runtime.cli.serve",
    "all": "import wenet_runtime.cli.serve, onnxruntime, PIL.Image",
}


def measure(arguments: Arguments) -> Measured:
    """Imports alone, a daemon with a simulated engine, one with five modes of MobileNet-V2, each a few times."""
    starts = 1 if arguments.quick else STARTS
    with tempfile.TemporaryDirectory(prefix="wenet-footprint-") as scratch:
        folder = Path(scratch)
        bundle = _five(folder, pixels=32 if arguments.quick else 224)
        imports = {name: [_imported_mb(words) for _ in range(starts)] for name, words in IMPORTS.items()}
        flags = ["--bundle", str(bundle), "--cache-dir", str(folder / "cache"), "--profile-rounds", "10"]
        simulated = [_daemon([*flags, "--engine", "sim"]) for _ in range(starts)]
        cold = _daemon(flags)  # builds and profiles
        warm = [_daemon(flags) for _ in range(starts)]
        told = {flag: [_ended_s([flag]) for _ in range(starts)] for flag in ("--help", "--version")}
    ready_s = [one[0] for one in warm]
    sim_mb, five_mb = _middle([one[1] for one in simulated]), _middle([one[1] for one in warm])
    engine_mb = _middle(imports["onnxruntime"]) - _middle(imports["numpy"])
    how = f"median of {starts} starts"
    figures = {
        "idle_mb": at_most(
            sim_mb + engine_mb,
            110.0,
            "MB",
            f"RSS of an idle daemon with a simulated engine, and what importing ONNX Runtime takes, {how}",
        ),
        "simulated_mb": reported(sim_mb, "MB", "RSS of an idle daemon with a simulated engine"),
        "five_modes_mb": reported(five_mb, "MB", f"RSS of an idle daemon with five modes, warm cache, {how}"),
        "modes_take_mb": reported(five_mb - sim_mb - engine_mb, "MB", "the rest: five modes' sessions and weights"),
        "ready_s": at_most(_middle(ready_s), 2.0, "s", f"exec to ready, five modes, warm cache, {how}"),
        "first_ready_s": reported(cold[0], "s", "exec to ready, five modes, empty cache: built and profiled"),
        "ready_simulated_s": reported(_middle([one[0] for one in simulated]), "s", f"simulated engine, {how}"),
        "help_s": at_most(_middle(told["--help"]), 0.5, "s", f"--help, {how}"),
        "version_s": at_most(_middle(told["--version"]), 0.2, "s", f"--version, {how}"),
        **{
            f"import_{name}_mb": reported(_middle(mb), "MB", f"RSS after imports, {how}")
            for name, mb in imports.items()
        },
    }
    samples = {"imports_mb": imports, "simulated": simulated, "warm": warm, "told_s": told}
    return figures, samples


def _middle(values: list[float]) -> float:
    return float(np.median(values))


def _five(folder: Path, pixels: int) -> Path:
    """MobileNet-V2 with random weights and five uniform modes."""
    wide = write(folder / "eight", make("mobilenet_v2", 0, pixels), own_statistics=False)
    modes = tuple(one for one in wide.modes if one.id in FIVE)
    files = {name: (wide.path / name).read_bytes() for name in wide.manifest.files}
    manifest = wide.manifest.__class__(**{**vars(wide.manifest), "modes": modes})
    write_bundle(folder / "bundle", manifest, files)
    return Bundle(folder / "bundle").path


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"process {pid} has ended")
    return int(found.group(1)) / MB


def _imported_mb(words: str) -> float:
    code = f"{words}\nimport re; print(re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read()).group(1))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout) / MB


def _daemon(flags: list[str]) -> tuple[float, float]:
    """Start a daemon: seconds until it is ready, and MB that it takes a second later."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    start_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "wenet_runtime.cli", *flags, "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "WENET_METER": "none"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _ready(port):
            if process.poll() is not None:
                raise RuntimeError(f"the daemon ended with {process.returncode}: {' '.join(flags)}")
            time.sleep(0.005)
        ready_s = time.perf_counter() - start_s
        time.sleep(1.0)
        return ready_s, _rss_mb(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _ended_s(flags: list[str]) -> float:
    start_s = time.perf_counter()
    command = [sys.executable, "-m", "wenet_runtime.cli", *flags]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start_s


if __name__ == "__main__":
    run("footprint", QUESTION, measure, needs_bundle=False)
