"""Does SIGTERM under load cost an answer? Daemons are started, loaded and ended, again and again."""

import contextlib
import http.client
import math
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Arguments, Measured, at_least, at_most, reported, run
from tests.fuzz.daemon import Daemon, valid_body

QUESTION = "Of 200 daemons that are ended by SIGTERM under load, which lose an answer, leave a process or fail to end?"
CLIENTS = 8
DRAINS, QUICK = 200, 2
END_S = 60.0


@dataclass
class Drain:
    """One daemon's end.

    Attributes:
        answered: requests that were sent before the signal and answered, before or after it.
        in_flight: of those, sent before the signal and answered after it.
        lost: sent before the signal and never answered.
        after: of requests sent after the signal, by status; 0 for those whose connection was not taken any more.
        exit_code: of the process.
        ended_ms: from the signal to the end.
        orphans: processes of its session that were left.
    """

    answered: int = 0
    in_flight: int = 0
    lost: int = 0
    after: "Counter[int]" = field(default_factory=Counter)
    exit_code: "int | None" = None
    ended_ms: float = 0.0
    orphans: int = 0


class _Load:
    """Clients that ask one request after another until their daemon is gone."""

    def __init__(self, port: int, found: Drain) -> None:
        self.signalled_s = math.inf
        self._found = found
        self._counted = threading.Lock()
        self._body = valid_body()
        self._port = port
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for one in self._threads:
            one.start()

    def join(self) -> None:
        """Wait until no client has anybody to ask."""
        for one in self._threads:
            one.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=END_S)
        status = 200
        while status:
            status, sent_s = 0, math.inf
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("POST", "/infer", self._body, {"Content-Type": "application/json"})
                sent_s = time.monotonic()
                reply = connection.getresponse()
                reply.read()
                status = reply.status
            self._note(sent_s, status)
        connection.close()

    def _note(self, sent_s: float, status: int) -> None:
        with self._counted:
            if sent_s >= self.signalled_s:
                self._found.after[status] += 1
            elif not status:
                self._found.lost += 1
            else:
                self._found.answered += 1
                self._found.in_flight += time.monotonic() > self.signalled_s


def processes_of(session: int) -> int:
    """How many processes of a session live. Linux only."""
    count = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:4]
            count += of == str(session) and state != "Z"
    return count


def drained(folder: Path, wait_s: float) -> Drain:
    """Start a daemon, load it, and end it after a while.

    Args:
        folder: its bundle and cache, warm after the first time.
        wait_s: how long it is loaded.
    """
    found = Drain()
    with Daemon(folder, own_session=True) as daemon:
        load = _Load(daemon.port, found)
        time.sleep(wait_s)
        load.signalled_s = time.monotonic()  # before the signal: none of what counts was sent after it
        daemon.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(Exception):
            found.exit_code = daemon.process.wait(END_S)
        found.ended_ms = (time.monotonic() - load.signalled_s) * 1e3
        load.join()
        found.orphans = processes_of(daemon.process.pid)
    return found


def measure(arguments: Arguments) -> Measured:
    """Drain after drain, each at a random moment of the load."""
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        drains = [drained(Path(folder), rng.uniform(0.05, 0.5)) for _ in range(QUICK if arguments.quick else DRAINS)]
    how = f"{len(drains)} SIGTERMs to daemons of three small modes, {CLIENTS} clients that never pause"
    after: Counter[int] = sum((one.after for one in drains), Counter())
    figures = {
        "lost": at_most(sum(one.lost for one in drains), 0, "requests", f"sent before the signal, not answered; {how}"),
        "orphans": at_most(sum(one.orphans for one in drains), 0, "processes", f"of the daemon's session; {how}"),
        "failed_ends": at_most(sum(one.exit_code != 0 for one in drains), 0, "daemons", f"exit code not 0; {how}"),
        "in_flight": at_least(sum(one.in_flight for one in drains), 1, "requests", f"answered after the signal; {how}"),
        "answered": reported(sum(one.answered for one in drains), "requests", f"sent before the signal; {how}"),
        "ended_p50_ms": reported(float(np.median([one.ended_ms for one in drains])), "ms", f"signal to end; {how}"),
        "ended_max_ms": reported(max(one.ended_ms for one in drains), "ms", f"signal to end; {how}"),
    }
    samples: dict[str, Any] = {
        "after_by_status": {str(status): count for status, count in sorted(after.items())},
        "ended_ms": [round(one.ended_ms, 1) for one in drains],
        "in_flight": [one.in_flight for one in drains],
        "cores": os.cpu_count(),
    }
    return figures, samples


if __name__ == "__main__":
    run("drains", QUESTION, measure, needs_bundle=False)
