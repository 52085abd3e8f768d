"""The clairvoyant: what nobody who serves in order of arrival, one by one, can exceed.

It knows every arrival, slowdown and run's noise, and may skip requests and leave the engine idle. An exact dynamic
programme over the backlog in steps of time finds the best. With times rounded down it is an upper bound (every real
schedule can be followed step by step, never later), with times rounded up a schedule that could really be run: the
optimum lies between. Batches and other orders than that of arrival are outside of it, so where budgets differ, or
batches save time, it is a yardstick and no bound.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.world import World

Integers = NDArray[np.int64]
UNITS = 1_000_000  # accuracies are counted in integers, so that sums are exact
# Worth of one more answer in time beside its accuracy: from "never mind misses" to "any miss outweighs all accuracy".
WORTHS = (-0.72, -0.64, -0.6, -0.5, -0.4, -0.2, 0.0, 1.0)
STEPS_OF_FASTEST = 32


@dataclass(frozen=True)
class Bound:
    """The best that is possible, as values of several weightings of misses and accuracy.

    Attributes:
        count: requests.
        most: accuracy of the most accurate mode.
        weights: of one answer in time, in units of accuracy; the last outweighs everything.
        values: the best of weight × answers + accuracy, for each weight.
    """

    count: int
    most: float
    weights: Integers
    values: Integers

    @property
    def answers(self) -> int:
        """The most requests that can be answered in time."""
        return int(self.values[-1] // self.weights[-1])

    @property
    def attainment(self) -> float:
        """The same as a share of all arrivals."""
        return self.answers / self.count

    @property
    def accuracy(self) -> float:
        """The best mean accuracy over them."""
        return self.accuracy_at(self.answers)

    def accuracy_at(self, answers: int) -> float:
        """An upper bound of the mean accuracy of exactly so many answers in time; nan for none.

        Whatever the weight, value − weight × answers bounds the accuracy's sum (Lagrangian relaxation); the least
        of them counts.
        """
        if answers <= 0:
            return math.nan
        least = min(int(value) - int(weight) * answers for value, weight in zip(self.values, self.weights, strict=True))
        return min(self.most, least / UNITS / answers)


def clairvoyant(world: World, *, step_ms: float | None = None, optimistic: bool = True) -> Bound:
    """Bound a world.

    Args:
        world: the trace and all that will happen.
        step_ms: of the backlog; by default a 32nd of the fastest mode's time.
        optimistic: round times down (an upper bound) rather than up (a schedule that can be run).
    """
    trace, modes = world.trace, world.device.modes
    count = len(trace)
    step = world.device.fastest_ms / STEPS_OF_FASTEST if step_ms is None else step_ms
    accuracies = [round(mode.accuracy * UNITS) for mode in modes]
    every = count * UNITS + 1  # more than all accuracy together
    weights = np.array([*(round(worth * UNITS) for worth in WORTHS), every], dtype=np.int64)
    rewards = [weights + accuracy for accuracy in accuracies]
    bins = math.ceil(float(trace.budgets_ms.max(initial=step)) / step) + 1
    gaps = np.diff(trace.arrivals_s, append=math.inf) * 1e3
    least = _Least(world, step, bins, optimistic=optimistic)
    value = np.zeros((len(weights), bins), dtype=np.int64)
    for index in range(count - 1, -1, -1):
        gap = float(gaps[index])
        last = math.isinf(gap)
        best = value * 0 if last else _shifted(value, _whole(-gap / step, optimistic=optimistic), bins)
        budget = float(trace.budgets_ms[index])
        for mode, reward in enumerate(rewards):
            service = least.service_ms(mode, index)
            if isinstance(service, float):
                fits = math.floor((budget - service) / step) + 1
                if fits <= 0:
                    continue
                fits = min(fits, bins)
                then = 0 if last else _whole((service - gap) / step, optimistic=optimistic)
                tried = (0 if last else _shifted(value, then, fits)) + reward[:, None]
                np.maximum(best[:, :fits], tried, out=best[:, :fits])
            else:
                ends = least.grid_ms + service
                in_time = ends <= budget
                steps = (ends - (0.0 if last else gap)) / step
                to = (np.floor(steps) if optimistic else np.ceil(steps)).clip(0, bins - 1).astype(np.intp)
                tried = (0 if last else value[:, to]) + reward[:, None]
                np.maximum(best, np.where(in_time, tried, np.iinfo(np.int64).min), out=best)
        # Waiting on purpose is allowed, so less backlog is never worse.
        value = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    return Bound(count, max(mode.accuracy for mode in modes), weights, value[:, 0])


class _Least:
    """What runs take by the backlog they start after."""

    def __init__(self, world: World, step: float, bins: int, *, optimistic: bool) -> None:
        self.grid_ms = np.arange(bins) * step
        disturbance, trace = world.disturbance, world.trace
        self._disturbance = disturbance
        self._arrivals = trace.arrivals_s
        self._ahead_s = step / 1e3 if optimistic else 0.0
        self._first = disturbance.piece(trace.arrivals_s).tolist()
        self._last = disturbance.piece(trace.arrivals_s + (self.grid_ms[-1] + step) / 1e3).tolist()
        self._factors = [disturbance.factors(mode.memory_share) for mode in world.device.modes]
        self._alone = [
            [
                device_ms * jitter
                for device_ms, jitter in zip(
                    (world.device.batch_ms(mode, int(rows)) for rows in trace.rows), world.jitter[mode], strict=True
                )
            ]
            for mode in range(len(world.device.modes))
        ]
        self._stalls: list[float] = world.stalls_ms.tolist()

    def service_ms(self, mode: int, index: int) -> "float | NDArray[np.float64]":
        """Of one request: a number while the slowdown does not change, otherwise (bins,)."""
        alone, stall = float(self._alone[mode][index]), self._stalls[index]
        factors = self._factors[mode]
        first = self._first[index]
        if first == self._last[index]:
            return alone * float(factors[first]) + stall
        starts_s = self._arrivals[index] + self.grid_ms / 1e3
        at = self._disturbance.piece(starts_s)
        # A real start lies within its step: the kinder end of the step bounds it, as no piece is shorter.
        slowdown = np.minimum(factors[at], factors[self._disturbance.piece(starts_s + self._ahead_s)])
        taken: NDArray[np.float64] = alone * slowdown + stall
        return taken


def _whole(steps: float, *, optimistic: bool) -> int:
    return math.floor(steps) if optimistic else math.ceil(steps)


def _shifted(value: Integers, by: int, length: int) -> Integers:
    """(weights, length): the value `by` steps further on; before the first step it is the first's."""
    if by >= 0:  # never beyond the last step: who answers in time is done by the latest deadline
        return value[:, by : by + length].copy()
    kept = max(0, length + by)
    return np.concatenate([np.repeat(value[:, :1], length - kept, axis=1), value[:, :kept]], axis=1)
