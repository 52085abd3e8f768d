"""What the future is worth behind so much work: a value function over the backlog, for arrivals as seen lately.

A request that comes upon w ms of work is answered by one of the modes, if that mode's bound still fits its budget, or
is missed; then some time passes until the next one comes. The best that can be made of that, on average over the
budgets and gaps that were seen, is found by relative value iteration. Pure numbers: no clocks, no threads.
"""

from bisect import bisect_right
from typing import Callable, List, NamedTuple, Optional, Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 96  # of work, up to the largest of the budgets that stand for all: a single long one would make them coarse
GAPS = 96  # quantiles that stand for all gaps
BUDGETS = (0.125, 0.375, 0.625, 0.875)  # quantiles that stand for all budgets
AGES = 6  # classes of time since the last arrival: bursts are not over at once
SWEEPS = 30  # of one planning; the next one goes on from its values
CLOSE = 1e-4

Floats = NDArray[np.float64]


class Traffic(NamedTuple):
    """What a planning goes by.

    Attributes:
        gaps_ms: between arrivals.
        budgets_ms: what they had left when they came.
        medians_ms, bounds_ms: of a run, by mode.
        accuracies: by mode.
        answer: what one answer in time is worth beside its accuracy.
    """

    gaps_ms: Sequence[float]
    budgets_ms: Sequence[float]
    medians_ms: Sequence[float]
    bounds_ms: Sequence[float]
    accuracies: Sequence[float]
    answer: float


class BacklogValue:
    """A solved value function.

    Args:
        step_ms: between its bins of work.
        values: before an arrival, by bin; 0 at no work.
        ages_ms: where the classes of time since the last arrival begin, ascending from 0.
        ahead: by class, by bin: what is to come, behind so much work.
        beyond: what a millisecond costs beyond the last bin.
    """

    def __init__(
        self, step_ms: float, values: Floats, ages_ms: Sequence[float], ahead: Sequence[List[float]], beyond: float
    ) -> None:
        self.step_ms = step_ms
        self.values = values
        self._ages_ms = list(ages_ms)
        self._ahead = list(ahead)
        self._beyond = beyond

    def behind(self, age_ms: float) -> "Behind":
        """The part that holds so long after the last arrival."""
        at = max(0, bisect_right(self._ages_ms, age_ms) - 1)
        return Behind(self._ahead[at], self.step_ms, self._beyond)


class Behind(NamedTuple):
    """What is to come, by the work before it, in accuracy; a difference between two of these is what counts."""

    values: List[float]
    step_ms: float
    beyond: float

    def worth(self, work_ms: float) -> float:
        """Behind so much work."""
        return self.after(0.0)(work_ms)

    def after(self, rest_ms: float) -> Callable[[float], float]:
        """Behind a run, by its length, ms, and so much more; made once for all modes of a decision."""
        values, step_ms = self.values, self.step_ms
        last = len(values) - 1
        per_step = step_ms * self.beyond

        def worth(run_ms: float) -> float:
            at = (run_ms + rest_ms) / step_ms
            low = int(at)
            if low >= last:
                return values[last] - (at - last) * per_step
            before = values[low]
            return before + (at - low) * (values[low + 1] - before)

        return worth


def solve(traffic: Traffic, before: Optional[BacklogValue] = None) -> BacklogValue:
    """The value function of such traffic, found from an earlier one on if there is one."""
    gaps = np.sort(np.asarray(traffic.gaps_ms, dtype=float))
    medians = np.asarray(traffic.medians_ms, dtype=float)
    budgets = np.quantile(np.asarray(traffic.budgets_ms, dtype=float), BUDGETS)
    top_ms = max(float(budgets[-1]), float(medians.min()))
    grid = np.linspace(0.0, top_ms, BINS)
    step_ms = float(grid[1])
    kernel = _kernel(grid, _spread(gaps))
    to = np.minimum((grid[None, :] + medians[:, None]) / step_ms, BINS - 1.000001)
    low = to.astype(int)
    high = to - low
    reward = (np.asarray(traffic.accuracies, dtype=float) + traffic.answer)[:, None]
    ends = grid[None, :] + np.asarray(traffic.bounds_ms, dtype=float)[:, None]
    late = [np.where(ends <= budget, 0.0, -np.inf) for budget in np.unique(budgets)]
    values = np.zeros(BINS)
    if before is not None:
        values = np.interp(grid, np.arange(BINS) * before.step_ms, before.values)
    for _ in range(SWEEPS):
        ahead = kernel @ values
        run = ahead[low] * (1 - high) + ahead[low + 1] * high + reward
        best = np.mean([np.maximum(ahead, (run + one).max(axis=0)) for one in late], axis=0)
        best = np.minimum.accumulate(best - best[0])  # more work is never worth more
        change = float(np.abs(best - values).max())
        values = best
        if change < CLOSE:
            break
    ages_ms = [0.0, *(float(age) for age in np.quantile(gaps, np.arange(1, AGES) / AGES))]
    tables = [(_kernel(grid, _spread(gaps[gaps >= age] - age)) @ values).tolist() for age in ages_ms]
    return BacklogValue(step_ms, values, ages_ms, tables, traffic.answer / float(medians.min()))


def _spread(gaps: Floats) -> Floats:
    """Quantiles that stand for all gaps."""
    return np.asarray(np.quantile(gaps, (np.arange(GAPS) + 0.5) / GAPS))


def _kernel(grid: Floats, gaps: Floats) -> Floats:
    """The matrix that takes values before the next arrival to their mean now, by the work that is left by then."""
    left = np.maximum(grid[:, None] - gaps[None, :], 0.0) / grid[1]
    low = np.minimum(left.astype(int), BINS - 2)
    high = left - low
    flat = (np.arange(BINS)[:, None] * BINS + low).ravel()
    weights = np.bincount(flat, (1 - high).ravel(), BINS * BINS) + np.bincount(flat + 1, high.ravel(), BINS * BINS)
    return np.asarray(weights.reshape(BINS, BINS) / gaps.size)
