"""What a point would add to the area under a frontier: costs to minimise, values to maximise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wenet_trainer.explore.terms import Floats

AT_ONCE = 64  # points whose gain is brought up to date together


@dataclass(frozen=True)
class Staircase:
    """Points none of which is both cheaper and better than another, and the corner that area is bounded by.

    Attributes:
        costs, values: ascending, both.
        corner: the highest cost, the lowest value; what lies beyond adds nothing.
    """

    costs: Floats
    values: Floats
    corner: tuple[float, float]

    @classmethod
    def of(cls, costs: Floats, values: Floats, corner: tuple[float, float]) -> "Staircase":
        """Of any points."""
        kept = members(costs, values, corner)
        return cls(costs[kept], values[kept], corner)

    def gains(self, costs: Floats, values: Floats) -> Floats:
        """The area that each point alone would add, (n,) → (n,)."""
        begins = np.concatenate([[-np.inf], self.costs])
        ends = np.concatenate([self.costs, [self.corner[0]]])
        heights = np.concatenate([[self.corner[1]], self.values])
        widths = np.maximum(ends - np.maximum(begins, costs[:, None]), 0)
        gains: Floats = (widths * np.maximum(values[:, None] - heights, 0)).sum(axis=1)
        return gains

    def plus(self, cost: float, value: float) -> "Staircase":
        """With one more point."""
        return Staircase.of(np.append(self.costs, cost), np.append(self.values, value), self.corner)


def members(costs: Floats, values: Floats, corner: tuple[float, float]) -> NDArray[np.intp]:
    """Indices of the points inside the corner that no other is cheaper and no worse than, by ascending cost."""
    order = np.lexsort((-values, costs))
    order = order[(costs[order] < corner[0]) & (values[order] > corner[1])]
    found: NDArray[np.intp] = order[better_than_before(values[order])]
    return found


def better_than_before(values: Floats) -> NDArray[np.bool_]:
    """Which values exceed all that stand before them."""
    found: NDArray[np.bool_] = values > np.concatenate([[-np.inf], np.maximum.accumulate(values)])[: len(values)]
    return found


def pick(front: Staircase, costs: Floats, values: Floats, count: int) -> list[int]:
    """Indices of the points that together add most: greedily, each counted once those before it are there."""
    chosen: list[int] = []
    bounds = front.gains(costs, values)  # what a point adds never grows, so an old gain is a bound of the new one
    exact = np.ones(len(bounds), dtype=bool)
    while len(chosen) < count and len(bounds) and bounds.max() > 0:
        best = int(bounds.argmax())
        if exact[best]:
            chosen.append(best)
            front = front.plus(float(costs[best]), float(values[best]))
            bounds[best] = 0.0
            exact = bounds <= 0
            continue
        stale = np.flatnonzero(~exact)
        if len(stale) > AT_ONCE:
            stale = stale[np.argpartition(bounds[stale], -AT_ONCE)[-AT_ONCE:]]
        bounds[stale] = front.gains(costs[stale], values[stale])
        exact[stale] = True
    return chosen
