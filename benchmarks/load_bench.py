"""Daemons in processes of their own, the bundle they serve, and loads sent to them."""

import dataclasses
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from benchmarks.bundles import write
from benchmarks.common import ROOT
from benchmarks.networks import make
from benchmarks.open_loop import Answer, Generator, Load
from benchmarks.stress import Stress, Switch
from wenet_runtime.bundle import Accuracy, Bundle
from wenet_runtime.bundle_files import write_bundle

SIZE = 128  # pixels: bodies of 197 kB, times of 5 to 28 ms on the machine this was written on
# ImageNet top-1 of the paper's Table II with shuffle. Recorded, not measured here: the weights are random.
PAPER = {"g1": 0.7607, "g2": 0.7563, "g4": 0.7407, "g8": 0.7043, "g16": 0.6424}
CONNECTIONS = 96  # more than a full queue
CLOSED_CONNECTIONS = 4  # keep the engine fed: one runs, one waits, two are on their way


class Daemon:
    """A daemon of its own process, ready once constructed. A context manager: leaving it stops the process."""

    def __init__(self, flags: Sequence[str], log: IO[bytes]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        command = [sys.executable, "-m", "wenet_runtime.cli", "--port", str(self.port), *flags]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        self._wait(log)

    def _wait(self, log: IO[bytes], timeout_s: float = 240.0) -> None:
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s and self._process.poll() is None:
            try:
                if self._get("/v2/health/ready")[0] == 200:
                    return
            except OSError:
                time.sleep(0.1)
        self.close()
        raise RuntimeError(f"no daemon on port {self.port}: {Path(log.name).read_text()[-2000:]}")

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def modes(self) -> dict[str, Any]:
        """The body of GET /modes."""
        found: dict[str, Any] = json.loads(self._get("/modes")[1])
        return found

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def five_modes(path: Path, seed: int) -> Bundle:
    """A bundle of ResNet-50 with random weights: the five uniform modes, with the paper's accuracies."""
    wide = write(path.with_suffix(".eight"), make("resnet50", seed, SIZE), own_statistics=False, seed=seed)
    modes = tuple(
        dataclasses.replace(
            mode, accuracy=Accuracy(PAPER[mode.id], 0.0, 1.0, 1), found_by="uniform; accuracy recorded, not measured"
        )
        for mode in wide.modes
        if mode.id in PAPER
    )
    files = {name: (wide.path / name).read_bytes() for name in wide.manifest.files}
    write_bundle(path, dataclasses.replace(wide.manifest, model="resnet50-random", modes=modes), files)
    return Bundle(path)


@dataclass(frozen=True)
class Sender:
    """Sends loads to daemons: from which core, with which body."""

    core: int | None
    body: Path

    def open_loop(
        self,
        daemon: Daemon,
        times: Sequence[float],
        seconds: float,
        headers: Mapping[str, str],
        *,
        stress: Stress | None = None,
        switches: Sequence[Switch] = (),
    ) -> list[Answer]:
        """Requests at these times, while the stress follows its switches, if there is one."""
        load = Load(daemon.port, str(self.body), list(times), dict(headers), CONNECTIONS, 0.0, self.core)
        return self._send(load, seconds, stress, switches)

    def capacity(self, daemon: Daemon, mode: str, seconds: float) -> float:
        """Requests per second that the daemon answers in a closed loop with one mode pinned and no budget."""
        headers = {"WeNet-Mode": mode}
        load = Load(daemon.port, str(self.body), [], headers, CLOSED_CONNECTIONS, seconds, self.core)
        answers = self._send(load, seconds, None, ())
        if len(answers) < 2 or any(one.status != 200 for one in answers):
            raise RuntimeError(f"the daemon did not answer every request pinned to {mode}: {answers[:3]}")
        ends = sorted(one.at_s + one.latency_ms / 1e3 for one in answers)
        return (len(ends) - 1) / (ends[-1] - ends[0])

    def _send(self, load: Load, seconds: float, stress: Stress | None, switches: Sequence[Switch]) -> list[Answer]:
        generator = Generator(load)
        try:
            start_s = time.monotonic() + 0.2
            generator.begin(start_s)
            if stress is not None:
                stress.follow(switches, start_s)
            return list(generator.result(seconds + load.patience_s + 30).answers)
        finally:
            generator.close()
