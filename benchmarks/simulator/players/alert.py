"""ALERT (USENIX ATC 2020) as published: one slowdown for all modes in a Kalman filter, a Gaussian for the tail.

Constants a = 0.3 and Q0 = 0.1 are those of its public re-implementation; R = 0.001 and the start μ = 1, σ² = 0.1,
K = 0.5 are recalled. Two rules: the most accurate mode whose probability to meet the deadline reaches a goal, and the
highest expected accuracy, where a miss counts nothing.
"""

import math
from statistics import NormalDist

from benchmarks.simulator.players.base import Given, Setup, Waiting

FORGETTING, Q0, R = 0.3, 0.1, 0.001
_PHI = NormalDist().cdf


class SlowdownFilter:
    """μ and σ of measured over profiled time."""

    def __init__(self) -> None:
        self.mean = 1.0
        self.variance = 0.1  # P⁻, which ALERT takes for σ²
        self._posterior = 0.1
        self._gain = 0.5
        self._innovation = 0.0
        self._q = Q0

    def observe(self, ratio: float) -> None:
        """Take in one run's measured over profiled time."""
        self._q = max(Q0, FORGETTING * self._q + (1 - FORGETTING) * (self._gain * self._innovation) ** 2)
        self.variance = self._posterior + self._q
        self._gain = self.variance / (self.variance + R)
        self._innovation = ratio - self.mean
        self.mean += self._gain * self._innovation
        self._posterior = (1 - self._gain) * self.variance

    def meets(self, left_ms: float, profiled_ms: float) -> float:
        """The probability that a run ends within `left_ms`."""
        return _PHI((left_ms / profiled_ms - self.mean) / math.sqrt(self.variance))


class Alert:
    """ALERT on one engine.

    Args:
        setup: what it knows.
        attainment: the probability that a mode must reach; None: the highest expected accuracy.
    """

    def __init__(self, setup: Setup, attainment: float | None) -> None:
        self._profiled_ms = [profile.p50_ms for profile in setup.in_order]
        self._accuracies = setup.accuracies
        self._attainment = attainment
        self._filter = SlowdownFilter()
        self._rows: dict[int, int] = {}
        self._waiting = Waiting()

    def choose(self, left_ms: float, rows: int) -> int:
        """The mode for a request with so much time left."""
        modes = range(len(self._profiled_ms))
        meets = [self._filter.meets(left_ms, self._profiled_ms[mode] * rows) for mode in modes]
        if self._attainment is None:
            return max(modes, key=lambda mode: (self._accuracies[mode] * meets[mode], -mode))
        fitting = [mode for mode in modes if meets[mode] >= self._attainment]
        if fitting:
            return max(fitting, key=lambda mode: self._accuracies[mode])
        return max(modes, key=lambda mode: (meets[mode], -mode))

    def arrive(self, index: int, now_s: float, budget_ms: float, rows: int) -> bool:
        """Accepts everything."""
        self._waiting.add(index, now_s, budget_ms, rows)
        return True

    def next(self, now_s: float) -> Given:
        """The most urgent, alone."""
        first = self._waiting.first(now_s)
        if first is None:
            return None
        deadline_s, index, _, rows = first
        self._waiting.take()
        self._rows[index] = rows
        return (index,), self.choose((deadline_s - now_s) * 1e3, rows)

    def finished(
        self, indexes: tuple[int, ...], mode: int, start_s: float, end_s: float, energy_mj: float | None
    ) -> None:
        """Filters the run's slowdown."""
        rows = self._rows.pop(indexes[0])
        self._filter.observe((end_s - start_s) * 1e3 / (self._profiled_ms[mode] * rows))

    def clock_changed(self, by: float, now_s: float) -> None:
        """Does not listen."""
