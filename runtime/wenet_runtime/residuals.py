"""A sliding window of numbers that knows its quantiles: what was really seen, instead of a distribution assumed."""

import itertools
import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from typing import Deque, List, Sequence


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the ascending sequence does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Residuals:
    """The latest values, in order of time and in order of size.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._recent: Deque[float] = deque()
        self._ordered: List[float] = []

    def add(self, value: float) -> None:
        """Take in a finite value; the oldest goes when the window is full."""
        if len(self._recent) == self._size:
            self._remove(self._recent.popleft())
        self._recent.append(value)
        insort(self._ordered, value)

    def forget_latest(self, count: int) -> None:
        """Take the latest values out again."""
        for _ in range(min(count, len(self._recent))):
            self._remove(self._recent.pop())

    def _remove(self, value: float) -> None:
        del self._ordered[bisect_left(self._ordered, value)]

    def quantile(self, share: float) -> float:
        """The smallest value that `share` of the window does not exceed; the window must not be empty."""
        return quantile(self._ordered, share)

    def at_least(self, value: float) -> int:
        """How many are as large as this or larger."""
        return len(self._ordered) - bisect_left(self._ordered, value)

    def at_most(self, value: float) -> int:
        """How many are as small as this or smaller."""
        return bisect_right(self._ordered, value)

    def latest(self, count: int) -> List[float]:
        """The latest values, the newest first."""
        return list(itertools.islice(reversed(self._recent), count))

    def keep_latest(self, count: int) -> None:
        """Forget all but the latest values."""
        while len(self._recent) > count:
            self._remove(self._recent.popleft())

    def __len__(self) -> int:
        return len(self._ordered)
