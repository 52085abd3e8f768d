"""A sum of terms over knobs as arrays: what a table or a predictor says of many configurations at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.additive import AdditiveCost
from wenet_trainer.layers import clip_groups
from wenet_trainer.space import SearchSpace

Floats = NDArray[np.float64]
Vectors = NDArray[np.intp]
Flags = NDArray[np.bool_]


def shape_of(space: SearchSpace) -> tuple[int, ...]:
    """How many levels each knob has, in the knobs' order."""
    return tuple(len(space.levels(knob)) for knob in space.knobs)


@dataclass(frozen=True)
class Terms:
    """A constant, a term for each knob's level, and a term for each pair of two knobs' levels.

    Attributes:
        constant: the full network's, with the terms of level 0 at 0.
        alone: by knob, then level.
        pairs: (knob, later knob) → by the levels of both.
    """

    constant: float
    alone: tuple[Floats, ...]
    pairs: Mapping[tuple[int, int], Floats] = field(default_factory=dict)

    def of(self, vectors: Vectors) -> Floats:
        """The sum for each row of level indices, (rows, knobs) → (rows,)."""
        total = np.full(len(vectors), self.constant)
        for knob, terms in enumerate(self.alone):
            total += terms[vectors[:, knob]]
        for (one, other), both in self.pairs.items():
            total += both[vectors[:, one], vectors[:, other]]
        return total

    def times(self, factor: float) -> "Terms":
        """All terms multiplied."""
        pairs = {key: factor * both for key, both in self.pairs.items()}
        return Terms(factor * self.constant, tuple(factor * one for one in self.alone), pairs)

    def plus(self, other: "Terms") -> "Terms":
        """The sum of two sums over the same knobs."""
        pairs = dict(self.pairs)
        for key, both in other.pairs.items():
            pairs[key] = pairs[key] + both if key in pairs else both
        alone = tuple(ours + theirs for ours, theirs in zip(self.alone, other.alone, strict=True))
        return Terms(self.constant + other.constant, alone, pairs)

    def chain(self) -> "Terms":
        """The nearest sum whose pairs are of consecutive knobs only, as the programme needs them.

        A term of knobs further apart becomes a term of each: least squares over all levels, so exact where
        it depends on one of the two alone.
        """
        constant, alone = self.constant, [terms.copy() for terms in self.alone]
        pairs: dict[tuple[int, int], Floats] = {}
        for (one, other), both in self.pairs.items():
            if other == one + 1:
                pairs[one, other] = both
                continue
            mean = float(both.mean())
            constant += mean
            alone[one] += both.mean(axis=1) - mean
            alone[other] += both.mean(axis=0) - mean
        return Terms(constant, tuple(alone), pairs)


def of_cost(cost: AdditiveCost, space: SearchSpace) -> Terms:
    """A table of layers as a table of knobs: exactly what `cost.of` says of every configuration of the space.

    Pairs inside a knob become its own terms; of layers that no knob moves the terms of one group count.
    """
    knob_of = {name: index for index, knob in enumerate(space.knobs) for name in knob}

    def patterns(layer: str) -> Sequence[int]:
        if layer not in knob_of:
            return (1,)
        levels = space.levels(space.knobs[knob_of[layer]])
        return [clip_groups(level, space.allowed[layer]) for level in levels]

    constant = cost.full
    alone = [np.zeros(levels) for levels in shape_of(space)]
    pairs: dict[tuple[int, int], Floats] = {}
    for layer, by_groups in cost.terms.items():
        column = np.array([by_groups[groups] for groups in patterns(layer)])
        if layer in knob_of:
            alone[knob_of[layer]] += column
        else:
            constant += float(column[0])
    for pair in cost.pairs:
        both = np.array(
            [[pair.costs.get(f"{one}.{other}", 0.0) for other in patterns(pair.second)] for one in patterns(pair.first)]
        )
        first, second = knob_of.get(pair.first), knob_of.get(pair.second)
        if first is None and second is None:
            constant += float(both[0, 0])
        elif second is None and first is not None:
            alone[first] += both[:, 0]
        elif first is None and second is not None:
            alone[second] += both[0]
        elif first == second and first is not None:
            alone[first] += both.diagonal()
        elif first is not None and second is not None:
            key, both = ((first, second), both) if first < second else ((second, first), both.T)
            pairs[key] = pairs[key] + both if key in pairs else both
    return Terms(constant, tuple(alone), pairs)
