"""When a mode that fails is taken out and when it is tried again: counts and times, nothing that runs.

Inputs are checked against the bundle before they get here, so that an engine's error is the engine's. One alone may be
a moment's (memory, a driver's hiccup); what fails again is taken out.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Deque, Dict, Optional, Tuple

from wenet_runtime.errors import EngineError

ERROR, NOT_FINITE, STUCK = "error", "not-finite", "stuck"
KINDS = {ERROR: "its engine failed", NOT_FINITE: "it answered what is no number", STUCK: "a run of it did not end"}
IN_A_ROW = 2
OF_LATEST, LATEST = 3, 10
FIRST_REST_S, LONGEST_REST_S = 1.0, 300.0  # doubled each time that it fails again
STUCK_S, STUCK_TIMES = 30.0, 50.0  # no run takes so long, whatever slows the device


class ModeFault(EngineError):
    """A mode failed, and not for what it was asked.

    Args:
        mode_id: which.
        kind: one of `KINDS`.
    """

    def __init__(self, mode_id: str, kind: str) -> None:
        super().__init__(f"mode '{mode_id}' failed: {KINDS[kind]}")
        self.mode_id = mode_id
        self.kind = kind


def stuck_after_s(p99_ms: float, rows: int) -> float:
    """How long a run may take before it is taken for one that never ends."""
    return max(STUCK_S, STUCK_TIMES * p99_ms * rows / 1e3)


@dataclass
class _Record:
    """One mode's latest runs (True: it failed), and when it is tried again if it is out."""

    latest: Deque[bool] = field(default_factory=lambda: deque(maxlen=LATEST))
    rest_s: float = FIRST_REST_S
    due_s: Optional[float] = None


class Faults:
    """Keeps count of every mode's failures.

    Attributes:
        counts: how often each mode failed in which way.
    """

    def __init__(self) -> None:
        self.counts: Dict[Tuple[str, str], int] = {}
        self._records: Dict[str, _Record] = {}  # of modes that have failed once

    def answered(self, mode_id: str) -> None:
        """A mode has answered."""
        record = self._records.get(mode_id)
        if record is not None:
            record.latest.append(False)
            if len(record.latest) == LATEST and not any(record.latest):
                del self._records[mode_id]  # forgiven, its long rests too

    def failed(self, mode_id: str, kind: str) -> bool:
        """A mode has failed; whether that is enough to take it out.

        Two errors in a row are, and three among ten runs. Numbers that are none are at once, because the mode's golden
        input was asked too; so is a run that did not end.
        """
        self.counts[mode_id, kind] = self.counts.get((mode_id, kind), 0) + 1
        latest = self._records.setdefault(mode_id, _Record()).latest
        latest.append(True)
        in_a_row = len(latest) >= IN_A_ROW and all(list(latest)[-IN_A_ROW:])
        return kind != ERROR or in_a_row or sum(latest) >= OF_LATEST

    def rest(self, mode_id: str, now_s: float) -> None:
        """A mode is out, or was tried and still fails: let it rest, twice as long each time."""
        record = self._records.setdefault(mode_id, _Record())
        record.due_s = now_s + record.rest_s
        record.rest_s = min(2 * record.rest_s, LONGEST_REST_S)

    def back(self, mode_id: str) -> None:
        """A mode is in service again; if it fails soon, it rests longer."""
        record = self._records.get(mode_id)
        if record is not None:
            record.due_s = None
            record.latest.clear()

    def due(self, now_s: float) -> Optional[str]:
        """The mode to try again now, if one is due."""
        for mode_id, record in self._records.items():
            if record.due_s is not None and record.due_s <= now_s:
                return mode_id
        return None

    def wait_s(self, now_s: float) -> Optional[float]:
        """How long until a mode is due; None if none will be."""
        dues = [record.due_s for record in self._records.values() if record.due_s is not None]
        return max(0.0, min(dues) - now_s) if dues else None
