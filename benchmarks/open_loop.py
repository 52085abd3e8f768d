"""An open-loop load: requests leave at times that were drawn beforehand, whatever the answers do.

A latency counts from the scheduled time, so neither a slow server nor a slow generator hides any of it. The sending is
done by a process of its own, `benchmarks.sender`.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.common import ROOT

NO_ANSWER = 0  # the status of a request whose connection broke, or that was not answered in time


def arrivals(rate: float, duration_s: float, *, cv2: float = 1.0, seed: int = 0) -> list[float]:
    """Seconds from the start, ascending, in [0, duration_s).

    Args:
        rate: mean arrivals per second.
        duration_s: how long they go on.
        cv2: squared coefficient of variation of the gaps: 1 is Poisson, more comes in bursts (gamma gaps).
        seed: of the draw.
    """
    if not (rate > 0 and duration_s > 0 and cv2 > 0):
        raise ValueError(f"rate {rate}, duration {duration_s} s and cv2 {cv2} must all be above 0")
    draw = np.random.default_rng(seed)
    times: list[float] = []
    now_s = 0.0
    while now_s < duration_s:
        gaps = draw.gamma(1 / cv2, cv2 / rate, 256)
        found = now_s + np.cumsum(gaps)
        times += [float(one) for one in found[found < duration_s]]
        now_s = float(found[-1])
    return times


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


@dataclass(frozen=True)
class Answer:
    """One request's fate. Milliseconds; what a refusal does not say is None.

    Attributes:
        at_s: when it was due, from the start.
        late_ms: how long after that the generator began to send it.
        latency_ms: from when it was due to the last byte of its reply, or to giving up.
        status: of HTTP, or `NO_ANSWER`.
        served_ms: the daemon's own latency (`WeNet-Latency-Ms`).
        problem: the slug of a refusal.
    """

    at_s: float
    late_ms: float
    latency_ms: float
    status: int
    mode: str | None = None
    reason: str | None = None
    predicted_ms: float | None = None
    served_ms: float | None = None
    met: bool | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Run:
    """What a generator saw.

    Attributes:
        start_s: monotonic, what `Answer.at_s` counts from.
        answers: by the time they were due.
        cpu_ms: the generator's own processor time per request.
        opened: connections opened after the start, because all were in use or one was closed.
    """

    start_s: float
    answers: tuple[Answer, ...]
    cpu_ms: float
    opened: int


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
