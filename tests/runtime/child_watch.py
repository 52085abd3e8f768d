"""What a meter on a child process may leave behind, and what its readings must add up to."""

import os
import time
from pathlib import Path
from typing import Any, Callable, List, Optional, Sequence, Tuple

from wenet_runtime.meters.trace import PowerTrace


class RecordedTrace(PowerTrace):
    """A trace that keeps every reading as it came: (s, W)."""

    def __init__(self, stale_after_s: float = 60.0, **how: Any) -> None:
        super().__init__(stale_after_s, **how)
        self.readings: List[Tuple[float, float]] = []

    def add(self, at_s: float, watts: float) -> None:
        super().add(at_s, watts)
        self.readings.append((at_s, watts))


def trapezoid_mj(readings: Sequence[Tuple[float, float]]) -> float:
    """Energy under readings (s, W), straight lines between them."""
    pairs = zip(readings, readings[1:])
    return sum((after_s - before_s) * (before + after) / 2 * 1e3 for (before_s, before), (after_s, after) in pairs)


def children(parent: Optional[int] = None) -> List[Tuple[int, str]]:
    """(process id, state) of the children that lead a session of their own, as a `LineChild` does.

    Args:
        parent: whose; this process's own if not given. State `Z` is one that nobody has waited for.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = path.read_text().split(" ", 1)
        except OSError:  # it ended meanwhile
            continue
        state, its_parent, _, session = rest.rpartition(")")[2].split()[:4]
        if int(its_parent) == (parent or os.getpid()) and session == pid:
            found.append((int(pid), state))
    return found


def descriptors(process: str = "self", kind: str = "") -> int:
    """How many files of a kind ("pipe", or any) a process holds open; this process if not given."""
    links = []
    for path in Path(f"/proc/{process}/fd").iterdir():
        try:
            links.append(os.readlink(path))
        except OSError:  # closed meanwhile, as the listing's own is
            continue
    return sum(link.startswith(kind) for link in links)


def until(reached: Callable[[], bool], patience_s: float = 60.0) -> bool:
    """Wait for what another thread or process does; False if it never did."""
    end_s = time.monotonic() + patience_s
    while not reached():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.005)
    return True
