"""Other work on the same machine, switched on and off: processes that spin, and processes that stream over memory.

Each is `python -m benchmarks.stress KIND CORE POLITE` and obeys its standard input: `1` works, `0` rests, the end of
the pipe ends it. The pipe ends with the parent, however that ends, so none is left behind.
"""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from benchmarks.common import ROOT

CPU, MEMORY = "cpu", "memory"
CHUNK_S = 0.005  # how long a child works before it looks at its pipe again
STREAM_MB = 64  # each of two arrays; larger than the last-level cache of what this runs on
SLICE_MB = 4


@dataclass(frozen=True)
class Stressor:
    """One process.

    Attributes:
        kind: what it does, `cpu` or `memory`.
        core: where; None leaves that to the system.
        polite: it takes only what its core has left, so that what runs there is slowed through the memory alone.
    """

    kind: str
    core: int | None = None
    polite: bool = False


@dataclass(frozen=True)
class Switch:
    """From `at_s` (from the start) on exactly the stressors at these positions work."""

    at_s: float
    working: frozenset[int]


class Stress:
    """Child processes that rest until they are switched on. A context manager: leaving it ends them."""

    def __init__(self, stressors: Sequence[Stressor]) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        try:
            for one in stressors:
                core = "-" if one.core is None else str(one.core)
                command = [sys.executable, "-m", "benchmarks.stress", one.kind, core, str(int(one.polite))]
                child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._children.append(child)
            for child in self._children:
                assert child.stdout is not None
                if child.stdout.readline() != b"ready\n":
                    raise RuntimeError(f"a stress process did not start: {child.args!r}")
        except BaseException:
            self.close()
            raise

    def switch(self, working: "frozenset[int] | set[int]") -> None:
        """Let the stressors at these positions work and the others rest."""
        for position, child in enumerate(self._children):
            assert child.stdin is not None
            child.stdin.write(b"1" if position in working else b"0")
            child.stdin.flush()

    def follow(self, switches: Sequence[Switch], start_s: float) -> list[float]:
        """Obey a schedule; returns after its last switch.

        Args:
            switches: by ascending time.
            start_s: monotonic, what their times count from.

        Returns:
            By how many milliseconds each switch was late.
        """
        late: list[float] = []
        for one in switches:
            time.sleep(max(0.0, start_s + one.at_s - time.monotonic()))
            self.switch(one.working)
            late.append((time.monotonic() - start_s - one.at_s) * 1e3)
        return late

    @property
    def pids(self) -> list[int]:
        """The processes' ids."""
        return [child.pid for child in self._children]

    def cpu_s(self) -> list[float]:
        """Processor seconds that each process has had; what says that it really worked. Linux only."""
        tick = os.sysconf("SC_CLK_TCK")
        found = []
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            found.append((int(fields[11]) + int(fields[12])) / tick)
        return found

    def close(self) -> None:
        """End all of them."""
        for child in self._children:
            assert child.stdin is not None
            with contextlib.suppress(OSError):
                child.stdin.close()
        for child in self._children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            assert child.stdout is not None
            child.stdout.close()

    def __enter__(self) -> "Stress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def alternating(period_s: float, duration_s: float, working: Sequence[frozenset[int]], *, first: bool) -> list[Switch]:
    """Stress for every other period, and off at the end.

    Args:
        period_s: how long each stays.
        duration_s: of the whole.
        working: which stressors work, by turns.
        first: whether the first period is one with stress.
    """
    switches, number, turn = [], 0, 0
    while number * period_s < duration_s:
        stressed = (number % 2 == 0) == first
        switches.append(Switch(number * period_s, working[turn % len(working)] if stressed else frozenset()))
        turn += stressed
        number += 1
    return [*switches, Switch(duration_s, frozenset())]


def spin() -> None:
    """Arithmetic for about `CHUNK_S`."""
    end_s, value = time.monotonic() + CHUNK_S, 1
    while time.monotonic() < end_s:
        for _ in range(200):
            value = (value * 1103515245 + 12345) & 0x7FFFFFFF


def streaming() -> Callable[[], None]:
    """A chunk of copying between two arrays that no cache holds; it goes on where it stopped."""
    length, part = (STREAM_MB << 20) // 8, (SLICE_MB << 20) // 8
    source, target = np.ones(length), np.zeros(length)
    at = 0

    def chunk() -> None:
        nonlocal at
        end_s = time.monotonic() + CHUNK_S
        while time.monotonic() < end_s:
            np.copyto(target[at : at + part], source[at : at + part])
            at = (at + part) % length

    return chunk


def main() -> None:
    """Obey the pipe until it ends."""
    kind, core, polite = sys.argv[1:4]
    if core != "-":
        os.sched_setaffinity(0, {int(core)})
    if polite == "1":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    chunk = {CPU: lambda: spin, MEMORY: streaming}[kind]()
    chunk()
    print("ready", flush=True)
    pipe, working = sys.stdin.fileno(), False
    while True:
        if not working or select.select([pipe], [], [], 0)[0]:
            orders = os.read(pipe, 4096)
            if not orders:
                return
            working = orders.endswith(b"1")
            continue
        chunk()


if __name__ == "__main__":
    main()
