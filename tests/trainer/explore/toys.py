"""Small problems whose every configuration can be looked at."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wenet_runtime.additive import AdditiveCost, PairTerm
from wenet_trainer.explore.problem import Cost, Limits, Problem
from wenet_trainer.explore.terms import Terms, Vectors
from wenet_trainer.space import GroupConfig, SearchSpace

LEVELS = (1, 2, 4, 8)


def space(shape: Sequence[int]) -> SearchSpace:
    """One layer a knob, with as many levels as the shape says."""
    allowed = {f"layer{index}": LEVELS[:levels] for index, levels in enumerate(shape)}
    return SearchSpace(allowed, tuple((name,) for name in allowed))


def every(shape: Sequence[int]) -> Vectors:
    """All vectors of a space."""
    return np.array(list(itertools.product(*(range(levels) for levels in shape))), dtype=np.intp)


def whole_terms(shape: Sequence[int], rng: np.random.Generator, pairs: Sequence[tuple[int, int]] = ()) -> Terms:
    """Random whole numbers."""
    alone = tuple(rng.integers(-9, 10, levels).astype(float) for levels in shape)
    both = {(one, other): rng.integers(-9, 10, (shape[one], shape[other])).astype(float) for one, other in pairs}
    return Terms(100.0, alone, both)


def table(of: SearchSpace, rng: random.Random, full: float) -> AdditiveCost:
    """Random savings that grow with the groups, and a dearer or cheaper pair of each two neighbours."""
    names = list(of.allowed)
    terms = {}
    for name in names:
        saved, levels = 0.0, {}
        for groups in of.allowed[name]:
            levels[groups] = -saved
            saved += rng.uniform(0.1, 0.3) * full / len(names)
        terms[name] = levels
    pairs = tuple(
        PairTerm(one, other, {"2.2": rng.uniform(-0.01, 0.01) * full, "4.2": 0.005 * full})
        for one, other in itertools.pairwise(names)
    )
    return AdditiveCost(full, terms, pairs)


@dataclass
class Toy:
    """A problem that counts what it is asked.

    Attributes:
        shape: levels of each knob.
        with_energy, with_tables: what the problem gives.
        limits, evaluations, seed: the problem's.
        calls: the configurations of each call for accuracies.
    """

    shape: Sequence[int] = (4, 4, 3, 4, 2, 4)
    with_energy: bool = False
    with_tables: bool = True
    limits: Limits = field(default_factory=Limits)
    evaluations: int = 120
    seed: int = 0
    calls: list[list[GroupConfig]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(7)
        self.space = space(self.shape)
        self.latency, self.energy = table(self.space, rng, 20.0), table(self.space, rng, 50.0)
        self.losses = {
            name: list(itertools.accumulate([0.0, *(rng.uniform(0.0, 0.03) for _ in levels[1:])]))
            for name, levels in self.space.allowed.items()
        }

    def accuracy(self, config: GroupConfig) -> float:
        lost = sum(self.losses[name][LEVELS.index(groups)] for name, groups in config.items())
        return float(0.9 - lost - lost**2)

    def accuracies(self, configs: Sequence[GroupConfig]) -> list[float]:
        self.calls.append(list(configs))
        return [self.accuracy(config) for config in configs]

    def cost(self, config: GroupConfig) -> Cost:
        return Cost(self.latency.of(config), self.energy.of(config) if self.with_energy else None)

    def problem(self) -> Problem:
        return Problem(
            self.space,
            self.accuracies,
            self.cost,
            self.latency if self.with_tables else None,
            self.energy if self.with_tables and self.with_energy else None,
            self.limits,
            self.evaluations,
            self.seed,
        )
