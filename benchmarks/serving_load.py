"""A load of any server by a process of its own: a whole request by name of a file, an open or a closed loop.

    python -m benchmarks.serving_load

reads a `Load` as JSON and prints what came of it. The sending is that of `wenet-runtime bench`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT
from wenet_runtime.client.load import Answer
from wenet_runtime.client.sender import Sender

UNAVAILABLE = 503


@dataclass(frozen=True)
class Load:
    """What is sent.

    Attributes:
        port: on 127.0.0.1.
        request: file with the whole request, as it goes over the wire.
        arrivals_s: when each is due, seconds from the start; empty in a closed loop.
        closed_s: how long a closed loop goes on.
        connections: how many are open at the start; of a closed loop, how many clients there are.
        core: the sending process's.
        patience_s: how long answers are waited for at the end.
    """

    port: int
    request: str
    arrivals_s: Sequence[float] = ()
    closed_s: float = 0.0
    connections: int = 96
    core: int | None = None
    patience_s: float = 5.0


@dataclass(frozen=True)
class Sent:
    """What came of it.

    Attributes:
        answers: by when they were due.
        without_retry_after: 503s that did not say when to come back.
    """

    answers: tuple[Answer, ...]
    without_retry_after: int

    def per_second(self) -> float:
        """Answers of a closed loop per second. Raises `RuntimeError` unless each was a 200."""
        bad = [one for one in self.answers if one.status != 200]
        if bad or len(self.answers) < 2:
            raise RuntimeError(f"{len(self.answers)} answers, of which {len(bad)} are no 200: {bad[:2]}")
        ends = sorted(one.at_s + one.latency_ms / 1e3 for one in self.answers)
        return (len(ends) - 1) / (ends[-1] - ends[0])


class Watching(Sender):
    """A sender that looks at `Retry-After`."""

    def __init__(self, load: Load) -> None:
        super().__init__(
            "127.0.0.1",
            load.port,
            requests=[Path(load.request).read_bytes()],
            arrivals_s=load.arrivals_s,
            connections=load.connections,
            closed_s=load.closed_s,
            patience_s=load.patience_s,
        )
        self.without_retry_after = 0

    def _done(self, connection: Any, status: int, headers: Mapping[str, str], body: bytes) -> None:
        if status == UNAVAILABLE and not headers.get("retry-after", "").isdigit():
            self.without_retry_after += 1
        super()._done(connection, status, headers, body)


def start(load: Load) -> "subprocess.Popen[str]":
    """Begin to send, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving_load"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # the scheduler's share of its own
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(load)) + "\n")
    process.stdin.flush()
    return process


def result(process: "subprocess.Popen[str]", timeout_s: float) -> Sent:
    """Wait for its end. Raises `RuntimeError` if it failed."""
    try:
        text, _ = process.communicate(timeout=timeout_s)
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"the sending process ended with {process.returncode}")
    members = json.loads(text)
    return Sent(tuple(Answer(*row) for row in members["answers"]), members["without_retry_after"])


def send(load: Load) -> Sent:
    """All of it."""
    seconds = load.closed_s or (load.arrivals_s[-1] if load.arrivals_s else 0.0)
    return result(start(load), seconds + load.patience_s + 30)


def main() -> None:
    """The sending process."""
    load = Load(**json.loads(sys.stdin.readline()))
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    sender = Watching(load)
    run = sender.run(time.monotonic() + 0.1)
    rows = [list(asdict(answer).values()) for answer in run.answers]
    print(json.dumps({"answers": rows, "without_retry_after": sender.without_retry_after}))


if __name__ == "__main__":
    main()
