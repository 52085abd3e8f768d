"""An open-loop load: requests leave at times that were drawn beforehand, whatever the answers do.

A latency counts from the scheduled time, so neither a slow server nor a slow generator hides any of it. The sending is
done by a process of its own, `benchmarks.sender`, with what `wenet-runtime bench` sends with.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.common import ROOT
from wenet_runtime.client.load import NO_ANSWER, Answer, Run, arrivals

__all__ = ["NO_ANSWER", "Answer", "Generator", "Load", "Run", "arrivals", "run_of"]


@dataclass(frozen=True)
class Load:
    """What a generator sends.

    Attributes:
        port: of the daemon on 127.0.0.1.
        body: file with the raw tensor that every request carries.
        arrivals_s: when each request is due, seconds from the start, ascending.
        headers: further headers, such as `WeNet-Budget-Ms`.
        connections: how many are open before the start.
        closed_s: 0 for an open loop; otherwise a closed one for so many seconds: a request leaves as soon as one of
            the connections is free, and `arrivals_s` is not looked at.
        core: the generator's; None leaves it to the system.
        patience_s: how long after the last request answers are waited for.
    """

    port: int
    body: str
    arrivals_s: Sequence[float]
    headers: Mapping[str, str] = field(default_factory=dict)
    connections: int = 96
    closed_s: float = 0.0
    core: int | None = None
    patience_s: float = 10.0


class Generator:
    """A generator's process: connected once constructed, sends from `begin`, told by `result`."""

    def __init__(self, load: Load) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sender"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the scheduler's share of its own: what it takes is not the daemon's
        )
        self._tell(json.dumps(asdict(load)))
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.close()
            raise RuntimeError(f"the generator could not connect to port {load.port}")

    def begin(self, start_s: float) -> None:
        """Send the first request of the load at `start_s` (monotonic) plus its time."""
        self._tell(repr(start_s))

    def result(self, timeout_s: float) -> Run:
        """Wait for the end of the load. Raises `subprocess.TimeoutExpired`, `RuntimeError` if the process failed."""
        try:
            text, _ = self._process.communicate(timeout=timeout_s)
        finally:
            self.close()
        if self._process.returncode != 0:
            raise RuntimeError(f"the generator ended with {self._process.returncode}")
        return run_of(json.loads(text))

    def close(self) -> None:
        """End the process if it is still there."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def run_of(members: Mapping[str, Any]) -> Run:
    """A run from what the process printed."""
    answers = tuple(Answer(*row) for row in members["answers"])
    return Run(members["start_s"], answers, members["cpu_ms"], members["opened"])
