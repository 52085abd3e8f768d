"""What does `POST /infer` add to `session.run`, against a bare FastAPI handler that runs the same session?"""

import http.client
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, Arguments, Measured, at_most, reported, run
from wenet_runtime.bundle import Bundle
from wenet_runtime.canary import golden_inputs
from wenet_runtime.engines.ort import OrtBackend, OrtEngine
from wenet_runtime.materialize import Supernet, materialize

QUESTION = "What does POST /infer add to session.run, against a bare FastAPI handler running the same session?"
ROUNDS = 1000


def measure(arguments: Arguments) -> Measured:
    """One client, one raw tensor a request, the three ways interleaved request by request."""
    bundle = Bundle(arguments.bundle)
    mode = bundle.modes[-1]  # the least accurate, so the smallest: overhead shows best beside it
    model = materialize(Supernet.of(bundle), mode.groups, bundle.statistics(mode))
    inputs = golden_inputs(bundle, rows=1)
    ((name, values),) = inputs.items()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mode.onnx"
        path.write_bytes(model)
        ports = _free_ports(2)
        daemon = _start(
            [
                sys.executable,
                "-m",
                "wenet_runtime.cli",
                "--bundle",
                str(arguments.bundle),
                "--port",
                str(ports[0]),
                "--mode",
                mode.id,
                "--cache-dir",
                folder,
            ]
        )
        bare = _start(
            [
                sys.executable,
                "-m",
                "benchmarks.bare_handler",
                str(path),
                name,
                str(ports[1]),
                *(str(size) for size in values.shape),
            ]
        )
        try:
            for port in ports:
                _wait_for(port)
            engine = OrtBackend().load_bytes(model, name=mode.id)
            samples = _sample(arguments, ports, engine, name, values)
        finally:
            for process in (daemon, bare):
                process.terminate()
                process.wait(10)
    medians = {way: float(np.median(times)) for way, times in samples.items()}
    ours = medians["wenet"] - medians["session"]
    theirs = medians["bare"] - medians["session"]
    count = len(samples["session"])
    how = f"medians of {count} interleaved requests, raw tensor of {values.nbytes} bytes, mode {mode.id}"
    figures = {
        "added_ratio": at_most(ours / theirs, 2.0, "x", f"(wenet - session) / (bare - session), {how}"),
        "added_ms": reported(ours, "ms", how),
        "bare_added_ms": reported(theirs, "ms", how),
        "session_ms": reported(medians["session"], "ms", how),
    }
    return figures, {f"{way}_ms": times for way, times in samples.items()}


def _sample(
    arguments: Arguments, ports: list[int], engine: OrtEngine, name: str, values: Any
) -> dict[str, list[float]]:
    body = np.ascontiguousarray(values).tobytes()
    headers = {
        "wenet": {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"},
        "bare": {"Content-Type": "application/octet-stream"},
    }
    clients = {way: http.client.HTTPConnection("127.0.0.1", port) for way, port in zip(("wenet", "bare"), ports)}
    for client in clients.values():
        client.connect()
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    expected = engine.infer({name: values})

    def ask(way: str) -> float:
        start = time.perf_counter()
        if way == "session":
            engine.infer({name: values})
            return (time.perf_counter() - start) * 1e3
        clients[way].request("POST", "/infer", body, headers[way])
        reply = clients[way].getresponse()
        content = reply.read()
        spent = (time.perf_counter() - start) * 1e3
        answer = np.frombuffer(content[-next(iter(expected.values())).nbytes :], np.float32)
        if reply.status != 200 or not np.allclose(answer, next(iter(expected.values())).ravel(), atol=1e-4):
            raise RuntimeError(f"{way} answered {reply.status}: {content[:200]!r}")
        return spent

    order = np.random.default_rng(arguments.seed)
    ways = ("session", "wenet", "bare")
    samples: dict[str, list[float]] = {way: [] for way in ways}
    rounds = 50 if arguments.quick else ROUNDS
    for number in range(rounds + 20):
        for position in order.permutation(3):
            spent = ask(ways[position])
            if number >= 20:  # the first twenty warm up
                samples[ways[position]].append(spent)
    for client in clients.values():
        client.close()
    return samples


def _start(command: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(port: int, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status in (200, 404):  # the bare handler has no such path
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"nothing answers on port {port} after {timeout_s:g} s")


if __name__ == "__main__":
    run("overhead", QUESTION, measure)
