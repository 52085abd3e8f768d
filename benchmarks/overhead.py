"""What does `POST /infer` add to `session.run`, against bare handlers that run the same session in a thread?

One client; ours, a bare ASGI handler, a FastAPI route and the session itself by turns, request by request, on a network
that does next to nothing: what is left is what serving costs.
"""

import http.client
import io
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import ROOT, Arguments, Figure, Measured, at_most, reported, run
from benchmarks.serving_client import Connection
from benchmarks.serving_models import Subject, transport
from wenet_runtime.engines.ort import OrtBackend

QUESTION = "What does POST /infer add to session.run, against bare handlers running the same session in a thread?"
ROUNDS, WARM = 2000, 50
OCTETS = "application/octet-stream"
RAW = {"Content-Type": OCTETS, "Inference-Header-Content-Length": "0"}
JPEG = {"Content-Type": "image/jpeg", "Accept": OCTETS}
FRAMEWORKS = ("asgi", "fastapi")


def measure(arguments: Arguments) -> Measured:
    """A tensor of a few bytes, one of 602 KB, and an image of 224 pixels."""
    figures: dict[str, Figure] = {}
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="wenet-overhead-") as folder:
        for name, pixels in (("small", 2), ("large", 224)):
            subject = transport(Path(folder) / name, pixels)
            with ExitStack() as stack:
                ways = _ways(stack, subject, pixels)
                taken = _by_turns(arguments, ways)
            image = taken.pop("wenet_jpeg", None)
            figures |= _figures(name, taken, len(subject.content))
            if image is not None:
                added = np.array(image) - np.median(taken["session"])
                how = "224-pixel JPEG decoded, less the session's median"
                figures["jpeg_added_ms"] = at_most(float(np.median(added)), 1.5, "ms", f"p50, {how}")
                figures["jpeg_added_p99_ms"] = reported(float(np.percentile(added, 99)), "ms", f"p99, {how}")
                taken["wenet_jpeg"] = image
            samples |= {f"{name}_{way}_ms": times for way, times in taken.items()}
    return figures, samples


def _figures(name: str, taken: dict[str, list[float]], size: int) -> dict[str, Figure]:
    session = float(np.median(taken["session"]))
    added = {way: np.array(times) - session for way, times in taken.items() if way != "session"}
    p50 = {way: float(np.median(times)) for way, times in added.items()}
    p99 = {way: float(np.percentile(times, 99)) for way, times in added.items()}
    how = f"{len(taken['session'])} requests by turns, tensor of {size} bytes, less the session's median"
    return {
        f"{name}_ratio": at_most(p50["wenet"] / p50["asgi"], 1.25, "x", f"added by ours over a bare ASGI's, {how}"),
        f"{name}_tail": at_most(p99["wenet"] / p50["wenet"], 3.0, "x", f"ours, p99 over p50 of what is added, {how}"),
        f"{name}_session_ms": reported(session, "ms", "median of the session alone"),
        **{f"{name}_{way}_added_ms": reported(p50[way], "ms", f"p50, {how}") for way in added},
        **{f"{name}_{way}_added_p99_ms": reported(p99[way], "ms", f"p99, {how}") for way in added},
    }


def _ways(stack: ExitStack, subject: Subject, pixels: int) -> dict[str, Callable[[], float]]:
    """What is timed, by name; servers and connections live as long as the stack."""
    (file,) = subject.files.values()
    engine = OrtBackend().load_bytes(file.read_bytes(), name="only")
    stack.callback(engine.close)
    spec = subject.bundle.manifest.inputs[0]
    values = np.frombuffer(subject.content, np.float32).reshape(1, *spec.shape[1:])
    (expected,) = engine.infer({spec.name: values}).values()

    wenet, *bare = _free_ports(1 + len(FRAMEWORKS))
    words = ["-m", "wenet_runtime.cli", "--bundle", str(subject.bundle.path), "--port", str(wenet)]
    _start(stack, [*words, "--cache-dir", str(subject.cache)])
    for framework, port in zip(FRAMEWORKS, bare, strict=True):
        words = ["-m", "benchmarks.bare_handler", framework, str(file), spec.name, str(port)]
        _start(stack, [*words, *(str(size) for size in values.shape)])

    def asking(port: int, body: bytes, headers: dict[str, str], *, check: bool = True) -> Callable[[], float]:
        _wait_for(port)
        client = Connection(port)
        stack.callback(client.close)
        fields = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        request = f"POST /infer HTTP/1.1\r\n{head}\r\n".encode() + body

        def ask() -> float:
            reply = client.ask(request)
            answer = np.frombuffer(reply.body[-expected.nbytes :], np.float32)
            if reply.status != 200 or (check and not np.allclose(answer, expected.ravel(), atol=1e-4)):
                raise RuntimeError(f"port {port} answered {reply.status}: {reply.body[:200]!r}")
            return reply.ms

        return ask

    def session() -> float:
        start_s = time.perf_counter()
        engine.infer({spec.name: values})
        return (time.perf_counter() - start_s) * 1e3

    ways: dict[str, Callable[[], float]] = {"session": session}
    ways["wenet"] = asking(wenet, subject.content, RAW)
    for framework, port in zip(FRAMEWORKS, bare, strict=True):
        ways[framework] = asking(port, subject.content, {"Content-Type": OCTETS})
    if subject.bundle.manifest.preprocess is not None:
        ways["wenet_jpeg"] = asking(wenet, _jpeg(pixels), JPEG, check=False)
    return ways


def _by_turns(arguments: Arguments, ways: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    order = np.random.default_rng(arguments.seed)
    names = list(ways)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(WARM + (100 if arguments.quick else ROUNDS)):
        for position in order.permutation(len(names)):
            spent_ms = ways[names[position]]()
            if number >= WARM:
                taken[names[position]].append(spent_ms)
    return taken


def _jpeg(pixels: int) -> bytes:
    """A picture that is not all one colour."""
    rows = np.random.default_rng(0).integers(0, 255, (pixels // 8, pixels // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(rows).resize((pixels, pixels)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _start(stack: ExitStack, words: list[str]) -> None:
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(port: int, timeout_s: float = 120.0) -> None:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status in (200, 404):  # the bare handlers have no such path
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"nothing answers on port {port} after {timeout_s:g} s")


if __name__ == "__main__":
    run("overhead", QUESTION, measure, needs_bundle=False)
