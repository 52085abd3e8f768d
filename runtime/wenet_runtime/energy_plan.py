"""The best mix of modes for a mean energy: at most two neighbours on the upper hull of accuracy over energy.

Energy is what a run takes above idle: idle watts are paid whether a mode runs or not, so they choose nothing. That
is race to idle, counted.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import List, NamedTuple, Optional, Sequence, Tuple

from wenet_runtime import pareto


@dataclass(frozen=True)
class Point:
    """What one mode is worth and takes: validation accuracy, 0–1, and mJ above idle per row; None when unknown."""

    mode_id: str
    accuracy: float
    energy_mj: Optional[float]


class HullPoint(NamedTuple):
    """A point whose energy is known; a tuple, because a plan makes one per mode."""

    mode_id: str
    accuracy: float
    energy_mj: float


@dataclass(frozen=True)
class Mix:
    """Two modes and the share of runs, 0–1, that `high` has; the rest are `low`'s. They may be the same."""

    low: HullPoint
    high: HullPoint
    share: float

    @property
    def energy_mj(self) -> float:
        """Its mean, above idle per row."""
        return self.low.energy_mj + self.share * (self.high.energy_mj - self.low.energy_mj)

    @property
    def accuracy(self) -> float:
        """Its mean."""
        return self.low.accuracy + self.share * (self.high.accuracy - self.low.accuracy)


def above_idle_mj(energy_mj: Optional[float], busy_ms: float, idle_w: float) -> Optional[float]:
    """What a run of the whole board's `energy_mj` takes above idle; None when that is unknown or impossible."""
    if energy_mj is None:
        return None
    above = energy_mj - idle_w * busy_ms  # W × ms = mJ
    return above if math.isfinite(above) and above > 0.0 else None


def known(points: Sequence[Point]) -> List[HullPoint]:
    """The points whose figures are possible: an energy above 0 and an accuracy, both finite."""
    return [
        HullPoint(one.mode_id, one.accuracy, one.energy_mj)
        for one in points
        if one.energy_mj is not None and 0.0 < one.energy_mj < math.inf and math.isfinite(one.accuracy)
    ]


def upper_hull(points: Sequence[HullPoint]) -> Tuple[HullPoint, ...]:
    """Those of the points on the upper hull of accuracy over energy, by both ascending."""
    return tuple(points[at] for at in pareto.upper_hull([(one.energy_mj, one.accuracy) for one in points]))


def mix(hull: Sequence[HullPoint], mean_mj: float) -> Mix:
    """The most accurate mix that takes `mean_mj` on average.

    It is the optimum of the linear programme over all shares of all modes: with one constraint beside "the shares
    add up to 1", some optimum has at most two modes, and they are neighbours on the hull.

    Args:
        hull: from `upper_hull`, not empty.
        mean_mj: below the cheapest, the mix is all cheapest and takes more than this; above the most accurate,
            it takes less.
    """
    place = bisect_right([one.energy_mj for one in hull], mean_mj)
    if place == 0 or place == len(hull):
        end = hull[0] if place == 0 else hull[-1]
        return Mix(end, end, 0.0)
    low, high = hull[place - 1], hull[place]
    return Mix(low, high, (mean_mj - low.energy_mj) / (high.energy_mj - low.energy_mj))
