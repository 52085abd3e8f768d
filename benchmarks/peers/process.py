"""A server's processes: started together, waited for, measured, stopped, and counted once they should be gone."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from benchmarks.peers.base import ROOT, SERVED, Command

STOP_S = 15.0
STARTS_S = 300.0
USER, SYSTEM = 11, 12  # where a process's times stand among what `_stat` returns


class Server:
    """A server of its own session, started when constructed. Leaving it stops the whole session.

    Args:
        command: what to start.
        served: file that says what is served.
        port: where it will listen.
        ready: path that answers 200 then.
        log: file that its output is added to.
        cores: that it may use; None leaves it to the system.
    """

    def __init__(
        self, command: Command, *, served: Path, port: int, ready: str, log: Path, cores: Sequence[int] | None = None
    ) -> None:
        self.port = port
        self._ready = ready
        self._log = log
        self.orphans = 0
        before = os.sched_getaffinity(0)
        if cores is not None:
            os.sched_setaffinity(0, cores)  # inherited
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    command.words,
                    cwd=ROOT,
                    env={**os.environ, SERVED: str(served), **command.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, before)

    def wait(self, timeout_s: float = STARTS_S) -> None:
        """Until it serves. Raises `RuntimeError` with what it said."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s and self._process.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", self._ready)
                if connection.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.1)
        raise RuntimeError(f"nothing serves on port {self.port}: {self._log.read_text(errors='replace')[-2000:]}")

    def processes(self) -> list[int]:
        """Ids of the server's process and all that came of it and live."""
        parents, sessions = _table()
        found = {self._process.pid, *(pid for pid, session in sessions.items() if session == self._process.pid)}
        more = found
        while more:
            more = {pid for pid, parent in parents.items() if parent in more and pid not in found}
            found |= more
        return sorted(pid for pid in found if pid in parents)

    def resident_mb(self) -> float:
        """Resident memory of all its processes, MB."""
        return sum(_resident_mb(pid) for pid in self.processes())

    def cpu_ms(self) -> float:
        """Processor time that all its processes have taken, ms, by the system's clock ticks."""
        words = (_stat(str(pid)) for pid in self.processes())
        ticks = sum(int(one[USER]) + int(one[SYSTEM]) for one in words if one is not None)
        return ticks * 1e3 / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """SIGTERM to the server's own process; what is left of the others after that is an orphan, and is killed."""
        others = [pid for pid in self.processes() if pid != self._process.pid]
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        end_s = time.monotonic() + 1.0
        while (left := [pid for pid in _alive(others) if pid]) and time.monotonic() < end_s:
            time.sleep(0.05)
        self.orphans = len(left)
        for pid in {*left, *self._session()}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _session(self) -> list[int]:
        return [pid for pid, session in _table()[1].items() if session == self._process.pid]

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _stat(pid: str) -> list[str] | None:
    """State, parent, group, session … of a process; None if it is gone."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _table() -> tuple[dict[int, int], dict[int, int]]:
    """Parents and sessions of all processes that live, by id."""
    parents, sessions = {}, {}
    for pid in (one.name for one in Path("/proc").iterdir() if one.name.isdigit()):
        words = _stat(pid)
        if words is not None and words[0] != "Z":
            parents[int(pid)], sessions[int(pid)] = int(words[1]), int(words[3])
    return parents, sessions


def _alive(pids: Sequence[int]) -> list[int]:
    return [pid for pid in pids if (words := _stat(str(pid))) is not None and words[0] != "Z"]


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path("/proc", str(pid), "statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
