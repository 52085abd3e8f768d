"""Synthetic problems shaped as ResNet-50's: no network behind them, so every figure from them is called synthetic.

The uniform modes have the accuracies and times of the paper's Table II (with shuffle); what each knob has in them
is drawn. A configuration with levels l loses

    loss(l) = sum_k d(k, l_k) + strength * sum_(j,k) c(j, k, l_j, l_k) * sqrt(d(j, l_j) * d(k, l_k))

of the full network's accuracy, d >= 0, over pairs (j, k) of neighbouring knobs, or of as many knobs drawn anywhere;
c is the mean of two numbers uniform in [-1, 1], one for the pair of knobs and one for the pair of their levels.
Both sums grow in proportion to d, so d at a level is scaled until the uniform mode of that level loses what it lost
in the paper. Time is a fixed part and a term per knob and level.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import sqrt

import numpy as np

from wenet_runtime.additive import AdditiveCost
from wenet_trainer.explore.problem import Cost, Limits, Problem
from wenet_trainer.explore.programme import best_by_cost
from wenet_trainer.explore.terms import Terms, of_cost
from wenet_trainer.space import GroupConfig, SearchSpace

LEVELS = (1, 2, 4, 8, 16)
ACCURACIES = (0.7607, 0.7563, 0.7407, 0.7043, 0.6424)  # paper, Table II, with shuffle
TIMES_MS = (203.38, 132.17, 127.35, 85.62, 43.41)
FIXED_MS = 15.0  # stem and classifier: assumed
REFERENCE = (204.0, 0.60)
BEST_BINS = 4000

Pulls = Mapping[tuple[int, int], Sequence[Sequence[float]]]


@dataclass(frozen=True)
class Generator:
    """How instances are drawn.

    Attributes:
        knobs: how many.
        strength: of what pairs of knobs do to each other.
        far: the pairs are drawn anywhere; neighbours otherwise.
        spread: of the knobs' sensitivities: standard deviation of their logarithm.
        level_spread: of one level's sensitivity around its knob's, likewise.
        time_spread: of the knobs' times, likewise.
    """

    knobs: int = 16
    strength: float = 0.0
    far: bool = False
    spread: float = 0.8
    level_spread: float = 0.3
    time_spread: float = 0.3


@dataclass(frozen=True)
class Synthetic:
    """One instance.

    Attributes:
        space: knobs "k00" and so on, each one layer.
        losses: by knob, then level.
        pulls: c of the formula, by pair of knobs, then their levels.
        strength: of the formula.
        table: latency.
    """

    space: SearchSpace
    losses: Sequence[Sequence[float]]
    pulls: Pulls
    strength: float
    table: AdditiveCost

    def accuracy(self, config: GroupConfig) -> float:
        """Of one configuration; from 0 to 1."""
        levels = [LEVELS.index(config[name]) for (name,) in self.space.knobs]
        return min(max(ACCURACIES[0] - _loss(levels, self.losses, self.pulls, self.strength), 0.0), 1.0)

    def best(self) -> list[GroupConfig]:
        """The true frontier, by the exact programme on the true terms; nearly so where pairs are far apart."""
        levels = range(len(LEVELS))
        pairs = {
            (one, other): np.array(
                [
                    [-self.strength * pull[a][b] * sqrt(self.losses[one][a] * self.losses[other][b]) for b in levels]
                    for a in levels
                ]
            )
            for (one, other), pull in self.pulls.items()
        }
        value = Terms(ACCURACIES[0], tuple(-np.array(losses) for losses in self.losses), pairs)
        front = best_by_cost(value, of_cost(self.table, self.space), BEST_BINS)
        return [self.space.config(vector) for vector in front.vectors.tolist()]

    def problem(self, evaluations: int, seed: int = 0) -> Problem:
        """What a search is given; what lies below the hypervolume's reference is not wanted."""
        return Problem(
            space=self.space,
            accuracies=lambda configs: [self.accuracy(config) for config in configs],
            cost=lambda config: Cost(self.table.of(config)),
            latency=self.table,
            limits=Limits(min_accuracy=REFERENCE[1]),
            evaluations=evaluations,
            seed=seed,
        )


def draw(generator: Generator, rng: random.Random) -> Synthetic:
    """One instance."""
    names = [f"k{index:02}" for index in range(generator.knobs)]
    knobs = [rng.lognormvariate(0, generator.spread) for _ in names]
    raw = [[0.0] + [knob * rng.lognormvariate(0, generator.level_spread) for _ in LEVELS[1:]] for knob in knobs]
    pairs = list(pairwise(range(len(names))))
    if generator.far:
        pairs = sorted(rng.sample(list(combinations(range(len(names)), 2)), len(pairs)))
    pulls = {}
    for pair in pairs:
        whole = rng.uniform(-1, 1)
        pulls[pair] = [[(whole + rng.uniform(-1, 1)) / 2 for _ in LEVELS] for _ in LEVELS]
    losses = [[0.0] * len(LEVELS) for _ in names]
    for level in range(1, len(LEVELS)):
        total = _loss([level] * len(names), raw, pulls, generator.strength)
        for one, drawn in zip(losses, raw, strict=True):
            one[level] = drawn[level] * (ACCURACIES[0] - ACCURACIES[level]) / total
    return Synthetic(
        SearchSpace(dict.fromkeys(names, LEVELS), tuple((name,) for name in names)),
        losses,
        pulls,
        generator.strength,
        _table(generator, names, rng),
    )


def _loss(
    levels: Sequence[int],
    losses: Sequence[Sequence[float]],
    pulls: Pulls,
    strength: float,
) -> float:
    alone = [one[level] for one, level in zip(losses, levels, strict=True)]
    if strength == 0:
        return sum(alone)
    together = sum(
        pull[levels[one]][levels[other]] * sqrt(alone[one] * alone[other]) for (one, other), pull in pulls.items()
    )
    return sum(alone) + strength * together


def _table(generator: Generator, names: Sequence[str], rng: random.Random) -> AdditiveCost:
    """Times of the knobs and levels that add up to each uniform mode's."""
    knobs = [rng.lognormvariate(0, generator.time_spread) for _ in names]
    raw = [[knob * rng.lognormvariate(0, generator.time_spread / 2) for _ in LEVELS] for knob in knobs]
    totals = [sum(column) for column in zip(*raw, strict=True)]
    times = [
        [(uniform - FIXED_MS) * one / total for uniform, one, total in zip(TIMES_MS, knob, totals, strict=True)]
        for knob in raw
    ]
    terms = {
        name: {groups: one - knob[0] for groups, one in zip(LEVELS, knob, strict=True)}
        for name, knob in zip(names, times, strict=True)
    }
    return AdditiveCost(TIMES_MS[0], terms)
