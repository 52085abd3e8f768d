"""The exact programme: for every cost the best sum of terms, over all configurations, without trying them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wenet_trainer.explore.staircase import better_than_before
from wenet_trainer.explore.terms import Floats, Terms, Vectors

BINS = 1500


@dataclass(frozen=True)
class Front:
    """The best configurations by cost.

    Attributes:
        vectors: level indices, (points, knobs), by ascending cost and value.
        values, costs: what the terms say of them; costs to the width of a bin in finding, exact in saying.
    """

    vectors: Vectors
    values: Floats
    costs: Floats


def best_by_cost(value: Terms, cost: Terms, bins: int = BINS) -> Front:
    """Maximise `value` for each cost: dynamic programming over the knobs, in order.

    The state is the last knob's level and the cost so far in bins, so that terms of consecutive knobs are
    exact; pairs of knobs further apart enter as `Terms.chain` has them. Every step's cost is rounded to a bin:
    with whole-numbered costs and as many bins as the range, nothing is lost.

    Args:
        value: what to maximise.
        cost: what it costs.
        bins: how finely the range between the least and the greatest cost is told apart.
    """
    gains, prices = _steps(value.chain()), _steps(cost.chain())
    least = [float(price.min()) for price in prices]
    span = sum(float(price.max()) - low for price, low in zip(prices, least, strict=True))
    width = span / bins if span > 0 else 1.0
    taken = [np.rint((price - low) / width).astype(np.intp) for price, low in zip(prices, least, strict=True)]
    size = sum(int(step.max()) for step in taken) + 1

    best = np.full((gains[0].shape[1], size), -np.inf)
    best[np.arange(len(best)), taken[0][0]] = gains[0][0]
    backs = []
    for gain, step in zip(gains[1:], taken[1:], strict=True):
        before, after = gain.shape
        reached = np.full((after, before, size), -np.inf)
        for one in range(before):
            for other in range(after):
                shift = int(step[one, other])
                reached[other, one, shift:] = best[one, : size - shift] + gain[one, other]
        back = reached.argmax(axis=1)
        best = np.take_along_axis(reached, back[:, None], axis=1)[:, 0]
        backs.append(back)
    return _read(best, backs, taken, value, cost)


def _steps(terms: Terms) -> list[Floats]:
    """What each knob adds, by the level before it (one for the first knob) and its own."""
    steps = [terms.alone[0][None, :]]
    for knob in range(1, len(terms.alone)):
        both = terms.pairs.get((knob - 1, knob), np.zeros((len(terms.alone[knob - 1]), 1)))
        steps.append(both + terms.alone[knob])
    return steps


def _read(best: Floats, backs: Sequence[Vectors], taken: Sequence[Vectors], value: Terms, cost: Terms) -> Front:
    """Follow the back-pointers of every bin that is better than all cheaper ones."""
    levels, tops = best.argmax(axis=0), best.max(axis=0)
    bins = np.flatnonzero(better_than_before(tops))
    level = levels[bins]
    vectors = np.empty((len(bins), len(taken)), dtype=np.intp)
    for knob in range(len(taken) - 1, 0, -1):
        vectors[:, knob] = level
        before = backs[knob - 1][level, bins]
        bins = bins - taken[knob][before, level]
        level = before
    vectors[:, 0] = level
    values, costs = value.of(vectors), cost.of(vectors)
    order = np.lexsort((-values, costs))
    kept = order[better_than_before(values[order])]
    return Front(vectors[kept], values[kept], costs[kept])
