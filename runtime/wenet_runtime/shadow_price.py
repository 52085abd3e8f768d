"""What a millisecond of the engine is worth to those who come after, learned from what it cost those before them.

A run that takes a millisecond more delays the next request by a millisecond, if that one already waits when the
engine is free again, and the next but one, until somebody has to take a quicker mode than it would have: that one
pays, by the accuracy it gives up per millisecond. Whoever finds the engine idle ends the chain. The mean of what was
paid, by how many waited at the decision, is the price a decision reckons with. Nothing is assumed about arrivals,
and a client that only sends once it is answered never makes its own price rise.
"""

from bisect import bisect_right
from typing import List

WINDOW = 64  # decisions over which a price is the mean
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # of jobs waiting, that are told apart
PENDING = 256  # a chain longer than this is reckoned from here on


class ShadowPrice:
    """Prices in accuracy (0–1) per millisecond, by how many jobs the engine has before it, the one to run included."""

    def __init__(self) -> None:
        self._prices: List[float] = [0.0] * len(STEPS)
        self._counts: List[int] = [0] * len(STEPS)
        self._pending: List[int] = []

    def at(self, waiting: int) -> float:
        """The price where so many jobs are to be run, 1 and more; of the next smaller number seen, if not yet seen."""
        at = bisect_right(STEPS, waiting) - 1
        while at > 0 and not self._counts[at]:
            at -= 1
        return self._prices[at]

    def idle(self) -> None:
        """The engine has nothing to do: no one was delayed by those before."""
        self._settle(0.0)

    def paid(self, slope: float) -> None:
        """A request had to give up so much accuracy per millisecond for want of time."""
        self._settle(slope)

    def decided(self, waiting: int) -> None:
        """A decision was made with so many jobs to run; who pays for its time is seen later."""
        if len(self._pending) >= PENDING:
            self._settle(0.0)
        self._pending.append(bisect_right(STEPS, waiting) - 1)

    def _settle(self, slope: float) -> None:
        for at in self._pending:
            self._counts[at] = min(WINDOW, self._counts[at] + 1)
            self._prices[at] += (slope - self._prices[at]) / self._counts[at]
        self._pending.clear()
