"""What a search is after, costs being shares of the full network's: limits, and the corner of all areas."""

from dataclasses import dataclass

import numpy as np

from wenet_trainer.explore.problem import Limits, Seen
from wenet_trainer.explore.terms import Flags, Floats

MARGIN = 0.05  # how far beyond what is wanted the corner lies, so that both ends of a frontier count


@dataclass(frozen=True)
class Wants:
    """Limits and corner.

    Attributes:
        full: what the full network costs, (objectives,): latency, then energy where every answer had one.
        most: the largest share of it that is wanted, (objectives,); infinity without a limit.
        least: the least accuracy wanted.
        floor: the corner's accuracy.
    """

    full: Floats
    most: Floats
    least: float
    floor: float

    @classmethod
    def of(cls, limits: Limits, uniforms: list[Seen]) -> "Wants":
        """From a problem's limits and its uniform modes, the full network first."""
        full = np.array(_costs(uniforms[0], energy=all(one.cost.energy_mj is not None for one in uniforms)))
        given = (limits.max_ms, limits.max_mj)[: len(full)]
        most = np.array([np.inf if limit is None else limit for limit in given]) / full
        worst = max(limits.min_accuracy, min(one.accuracy for one in uniforms))
        best = max(one.accuracy for one in uniforms)
        return cls(full, most, limits.min_accuracy, worst - MARGIN * max(best - worst, 0.01))

    def costs(self, seen: Seen) -> Floats:
        """What was evaluated as shares, (objectives,)."""
        return np.array(_costs(seen, energy=len(self.full) > 1)) / self.full

    def kept(self, accuracies: Floats, costs: Floats) -> Flags:
        """Which points keep to the limits: (n,), (n, objectives) → (n,)."""
        found: Flags = (costs <= self.most).all(axis=1) & (accuracies >= self.least)
        return found

    def corner(self, weights: Floats) -> tuple[float, float]:
        """The corner where costs are added up with these weights."""
        return float(weights @ np.minimum(self.most, 1.0)) * (1 + MARGIN), self.floor


def _costs(seen: Seen, *, energy: bool) -> list[float]:
    return [seen.cost.latency_ms] + ([seen.cost.energy_mj] if energy and seen.cost.energy_mj is not None else [])
