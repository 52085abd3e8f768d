"""A small board that serves every arrival in order, its arrivals and meters, and the plans of one who knows it all.

Simulated. Times and accuracies are the paper's Table II; the watts are a shape (a small board: 2 W idle, busier the
denser the mode), not a measurement.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.synthetic_spaces import ACCURACIES, LEVELS, TIMES_MS
from wenet_runtime.energy_plan import HullPoint, Point, above_idle_mj, upper_hull
from wenet_runtime.power_budget import PowerBudget

IDLE_W = 2.0
BUSY_W = (10.0, 8.75, 7.5, 6.25, 5.0)  # shape: full to 1/16
BIAS = (0.8, 1.25)
METER_NOISE = 0.05
RATE = 3.0  # rows per second, mean of the steady traces
SHARE = 0.55  # of what the full mode would take above idle at that rate: so the budget binds
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Mode:
    """One of the paper's modes on the board of the simulation."""

    id: str
    accuracy: float
    time_s: float
    above_mj: float

    @property
    def point(self) -> Point:
        """As its profile says."""
        return Point(self.id, self.accuracy, self.above_mj)


@dataclass(frozen=True)
class Run:
    """What was served: when each row arrived, began and ended, what it was worth and truly took above idle."""

    arrived: Vector
    began: Vector
    ended: Vector
    accuracy: Vector
    above_mj: Vector
    decided: Sequence[str]

    def above_in(self, edges: Vector) -> Vector:
        """mJ above idle between neighbouring edges; a run takes its energy evenly."""
        times = np.stack([self.began, self.ended], axis=1).ravel()
        spent = np.stack([np.cumsum(self.above_mj) - self.above_mj, np.cumsum(self.above_mj)], axis=1).ravel()
        return np.diff(np.interp(edges, times, spent))


def modes() -> list[Mode]:
    """The five uniform modes, full first."""
    return [
        Mode(f"1/{level}", accuracy, ms / 1e3, above_idle_mj(watts * ms, ms, IDLE_W) or math.nan)
        for level, accuracy, ms, watts in zip(LEVELS, ACCURACIES, TIMES_MS, BUSY_W, strict=True)
    ]


def true_points(offered: Sequence[Mode], bias: Mapping[str, float]) -> tuple[HullPoint, ...]:
    """The hull that only the oracle knows."""
    return upper_hull([HullPoint(one.id, one.accuracy, one.above_mj * bias[one.id]) for one in offered])


def draw_bias(offered: Sequence[Mode], rng: random.Random) -> dict[str, float]:
    """True over profiled energy, by mode."""
    low, high = BIAS
    return {one.id: math.exp(rng.uniform(math.log(low), math.log(high))) for one in offered}


def arrivals(rate: Callable[[float], float], seconds: float, squared_cv: float, rng: random.Random) -> list[float]:
    """Instants of a renewal process with gamma gaps, run on a clock that goes as fast as the rate."""
    found: list[float] = []
    shape = 1.0 / squared_cv
    now, tick, due = 0.0, 0.05, rng.gammavariate(shape, squared_cv)
    while now < seconds:
        step = rate(now + tick / 2) * tick
        while due <= step:
            found.append(now + tick * due / step)
            due += rng.gammavariate(shape, squared_cv)
        due -= step
        now += tick
    return found


def ramp(now_s: float) -> float:
    """From 1/s to 6/s in ten minutes, and back."""
    return 1.0 + 5.0 * abs((now_s / 600.0 + 1.0) % 2.0 - 1.0)


def day(now_s: float, length_s: float) -> float:
    """A night of 0.5/s and a noon of 6/s."""
    return 3.25 - 2.75 * math.cos(2.0 * math.pi * now_s / length_s)


def serve(
    budget: PowerBudget,
    offered: Sequence[Mode],
    bias: Mapping[str, float],
    times: Sequence[float],
    meter: Callable[[float], float | None],
) -> Run:
    """Serve every arrival in order, each with the most accurate mode whose profiled energy is within the cap."""
    rows: list[tuple[float, float, float, float]] = []
    decided: list[str] = []
    points = [one.point for one in offered]
    free_s, seen = 0.0, 0
    for arrived_s in times:
        began_s = max(arrived_s, free_s)
        while seen < len(times) and times[seen] <= began_s:
            budget.arrived(1, times[seen])
            seen += 1
        budget.plan(points, began_s)
        cap = budget.cap_mj(began_s)
        chosen = next((one for one in offered if one.above_mj <= cap), offered[-1])
        free_s = began_s + chosen.time_s
        true_mj = chosen.above_mj * bias[chosen.id]
        reading = meter(true_mj + IDLE_W * chosen.time_s * 1e3)
        budget.spent(reading, chosen.above_mj, began_s, free_s, mode_id=chosen.id)
        rows.append((began_s, free_s, chosen.accuracy, true_mj))
        decided.append(chosen.id)
    began, ended, accuracy, above = (np.array(column) for column in zip(*rows, strict=True))
    return Run(np.array(times), began, ended, accuracy, above, decided)


def noisy(rng: random.Random) -> Callable[[float], float | None]:
    """A meter that is off by 5 %."""
    return lambda energy_mj: energy_mj * (1.0 + rng.gauss(0.0, METER_NOISE))


def no_meter(energy_mj: float) -> float | None:
    """A board without one."""
    return None


def oracle_mj(hull: Sequence[HullPoint], rows: Vector, most_mj: Vector, accuracy: float) -> float:
    """The energy above idle at which an oracle that holds the same windows is as accurate, by linear programming.

    It knows all arrivals and true energies and mixes modes in any fractions: per window of n rows the most accurate
    mix of share × most_mj, which all rows of a window take part in alike, as accuracy is concave over energy. The
    share, one for all windows, is found by bisection.

    Raises:
        ValueError: it does not reach the accuracy with twice the energy.
    """

    def reached(share: float) -> tuple[float, float]:
        per_row = np.clip(share * most_mj / np.maximum(rows, 1), hull[0].energy_mj, hull[-1].energy_mj)
        return _worth(hull, rows, per_row), float(np.sum(per_row * rows))

    return _bisect(reached, 0.0, 2.0, accuracy)


def least_mj(hull: Sequence[HullPoint], rows: float, accuracy: float) -> float:
    """The least energy above idle at which so many rows can be so accurate, held to no window: a lower bound."""
    count = np.array([rows])

    def reached(level: float) -> tuple[float, float]:
        return _worth(hull, count, np.array([level])), level * rows

    return _bisect(reached, hull[0].energy_mj, hull[-1].energy_mj, accuracy)


def _worth(hull: Sequence[HullPoint], rows: Vector, per_row_mj: Vector) -> float:
    worth = np.interp(per_row_mj, [one.energy_mj for one in hull], [one.accuracy for one in hull])
    return float(np.sum(worth * rows) / np.sum(rows))


def _bisect(reached: Callable[[float], tuple[float, float]], low: float, high: float, accuracy: float) -> float:
    if reached(high)[0] < accuracy - 1e-9:
        raise ValueError(f"the oracle reaches {reached(high)[0]:.5f}, not {accuracy:.5f}")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle)[0] >= accuracy else (middle, high)
    return reached(high)[1]


def traces(day_s: float) -> Mapping[str, tuple[Callable[[float], float], float]]:
    """Name → rate over time, squared coefficient of variation of the gaps; days may be short."""
    return {
        "poisson": (lambda _: RATE, 1.0),
        "gamma_cv2_4": (lambda _: RATE, 4.0),
        "ramp": (ramp, 1.0),
        "diurnal": (lambda now_s: day(now_s, day_s), 1.0),
    }


def budget_w(offered: Sequence[Mode]) -> float:
    """An average power that binds at the mean rate."""
    return IDLE_W + SHARE * offered[0].above_mj * RATE / 1e3
