"""Time that passed, from instants of a clock that may step or be read out of order; and the rate of what came in it."""

import math
from typing import Optional

# A quiet hour is believed. A longer step of the clock says nothing of how much time passed.
LONGEST_STEP_S = 3600.0
SKEW_S = 1.0  # calls of different threads may come in another order than their clocks were read


class SteadyClock:
    """Sums up the steps between instants that are credible.

    Args:
        jump_s: what a step ahead that is too long counts for. One back counts for nothing.
        start_s: the first instant; None: the first that is told.

    Attributes:
        elapsed_s: time passed since the first instant.
        jumps: steps that were not believed.
    """

    def __init__(self, jump_s: float, start_s: Optional[float] = None) -> None:
        self._jump_s = jump_s
        self._last_s = start_s
        self.elapsed_s = 0.0
        self.jumps = 0

    def advance(self, now_s: float) -> float:
        """Take note of the time; returns the seconds that this added, at least 0."""
        if self._last_s is None:
            if math.isfinite(now_s):
                self._last_s = now_s
            return 0.0
        step = now_s - self._last_s
        if 0.0 <= step <= LONGEST_STEP_S:
            self._last_s = now_s
        elif -SKEW_S <= step < 0.0:
            return 0.0
        else:
            step = self._jumped(now_s, step)
        self.elapsed_s += step
        return step

    def _jumped(self, now_s: float, step: float) -> float:
        self.jumps += 1
        if not math.isfinite(now_s):
            return 0.0
        self._last_s = now_s
        return self._jump_s if step > 0.0 else 0.0


class ArrivalRate:
    """Rows per second: of late, and since the beginning. Times are a `SteadyClock`'s.

    Args:
        memory_s: what came longer ago than this hardly counts.
        least_s: shorter times than this do not make a rate.
    """

    def __init__(self, memory_s: float, least_s: float) -> None:
        self._memory_s = memory_s
        self._least_s = least_s
        self._rows = 0.0
        self._recent = 0.0
        self._at_s = 0.0

    def add(self, rows: int, elapsed_s: float) -> None:
        """Count rows."""
        self._rows += rows
        self._recent = self._faded(elapsed_s) + rows
        self._at_s = elapsed_s

    def recent_per_s(self, elapsed_s: float) -> float:
        """Of the last memory's length or so; at first of the little time that has passed."""
        return self._faded(elapsed_s) / (self._memory_s * -math.expm1(-max(elapsed_s, self._least_s) / self._memory_s))

    def usual_per_s(self, elapsed_s: float) -> float:
        """Since the beginning."""
        return self._rows / max(elapsed_s, self._least_s)

    def _faded(self, elapsed_s: float) -> float:
        return self._recent * math.exp((self._at_s - elapsed_s) / self._memory_s)
