"""The start of a search: random configurations at all costs, some of which begin alike."""

import random
from collections.abc import Sequence
from itertools import pairwise
from math import exp, log

import numpy as np

from wenet_trainer.explore.terms import Vectors

BRANCHES = 5  # second halves to each first half: what runs first needs to be evaluated once for them
WIDE = 0.3  # share of draws whose knobs stray from the two uniform modes by a level or two
ATTEMPTS = 50  # per draw, before a small space is taken to be exhausted


def start(shape: Sequence[int], uniforms: Vectors, costs: Sequence[float], count: int, rng: random.Random) -> Vectors:
    """Distinct configurations, none of them uniform, as rows of level indices; fewer in a small space.

    For each a cost is drawn, log-uniformly; every knob takes its level from the one or the other of two
    neighbouring uniform modes, with the probability that meets the cost on average. (Drawn independently,
    they would all cost about the same.)

    Args:
        shape: levels of each knob.
        uniforms: level indices of the uniform modes, from the full network to the smallest.
        costs: of the uniform modes, in any unit.
        count: how many.
        rng: of all that is random.
    """
    found: dict[tuple[int, ...], None] = {}
    known = {tuple(vector) for vector in uniforms.tolist()}
    half = len(shape) // 2
    for _ in range(count * ATTEMPTS):
        if len(found) >= count:
            break
        base, share = _between(costs, rng)
        wide = rng.random() < WIDE
        first = _draw(shape, uniforms, base, share, wide, rng)[:half]
        for _ in range(BRANCHES):
            vector = tuple(first + _draw(shape, uniforms, base, share, wide, rng)[half:])
            if vector not in known and len(found) < count:
                found[vector] = None
    return np.array(list(found), dtype=np.intp).reshape(-1, len(shape))


def _between(costs: Sequence[float], rng: random.Random) -> tuple[int, float]:
    """A uniform mode and the share of knobs that take the next one's level, for a drawn cost."""
    least, most = min(costs), max(costs)
    wanted = exp(rng.uniform(log(least), log(most))) if 0 < least < most else rng.uniform(least, most)
    around = [
        index for index, (one, other) in enumerate(pairwise(costs)) if min(one, other) <= wanted <= max(one, other)
    ]
    base = rng.choice(around or [0])
    if base + 1 >= len(costs) or costs[base] == costs[base + 1]:
        return base, rng.random()
    return base, (costs[base] - wanted) / (costs[base] - costs[base + 1])


def _draw(
    shape: Sequence[int], uniforms: Vectors, base: int, share: float, wide: bool, rng: random.Random
) -> list[int]:
    after = min(base + 1, len(uniforms) - 1)
    levels = [int(uniforms[after if rng.random() < share else base][knob]) for knob in range(len(shape))]
    if wide:
        levels = [level + rng.choice((-2, -1, 0, 0, 1, 2)) for level in levels]
    return [min(max(level, 0), top - 1) for level, top in zip(levels, shape, strict=True)]
