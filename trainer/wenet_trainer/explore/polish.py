"""Steps from what was evaluated: changes of one knob, judged from their parent's measured accuracy."""

from collections.abc import Sequence

import numpy as np

from wenet_trainer.explore.knowledge import Knowledge
from wenet_trainer.explore.programme import best_by_cost
from wenet_trainer.explore.staircase import Staircase, members, pick
from wenet_trainer.explore.terms import Floats, Terms, Vectors
from wenet_trainer.explore.wants import Wants

HOPES = (0.0, 1.0, 2.0)  # by how many of its errors a prediction is taken to be too low, once nothing else is left
FEW = 5  # parents where nothing that was evaluated is wanted


def single_changes(parents: Vectors, shape: Sequence[int]) -> tuple[Vectors, Vectors]:
    """All configurations that differ from a parent in one knob, to any level.

    Returns:
        The configurations, (n, knobs), and which parent each came from, (n,); one that several parents reach
        comes once from each.
    """
    found, origins = [], []
    rows = np.arange(len(parents))
    for knob, levels in enumerate(shape):
        for level in range(levels):
            moved = rows[parents[:, knob] != level]
            changed = parents[moved].copy()
            changed[:, knob] = level
            found.append(changed)
            origins.append(moved)
    return np.concatenate(found), np.concatenate(origins)


def next_steps(
    known: Knowledge, wants: Wants, shape: Sequence[int], weights: Floats, count: int, *, optimism: float = 0.0
) -> Vectors:
    """What to evaluate next: that which is predicted to add most to the frontier found so far.

    Among single changes of the frontier's configurations and the best that the predictor sees anywhere.

    Args:
        known: what was evaluated.
        wants: limits and corner.
        shape: levels of each knob.
        weights: of the objectives' shares, adding up to one cost.
        count: most rows.
        optimism: by how much what the predictor sees as best turned out worse so far: who takes the best of many
            predictions takes their errors. A single change of a known configuration suffers much less.

    Returns:
        (up to `count`, knobs) level indices; none where nothing is likely to add anything.
    """
    vectors, accuracies, costs = _candidates(known, wants, shape, weights, optimism)
    kept = np.flatnonzero(known.unknown(vectors) & wants.kept(accuracies + known.accuracy.error, costs))
    vectors, accuracies, spent = vectors[kept], accuracies[kept], costs[kept] @ weights
    front = _front(known, wants, weights)[0]
    chosen: list[int] = []
    taken: set[bytes] = set()
    for hope in HOPES:
        if len(chosen) == count:
            break
        for index in pick(front, spent, accuracies + hope * known.accuracy.error, count):
            if len(chosen) < count and vectors[index].tobytes() not in taken:
                taken.add(vectors[index].tobytes())
                chosen.append(index)
    return vectors[chosen]


def added(terms: Sequence[Terms], weights: Floats) -> Terms:
    """The objectives' sums as one."""
    first, *others = [one.times(float(weight)) for one, weight in zip(terms, weights, strict=True)]
    for one in others:
        first = first.plus(one)
    return first


def _front(known: Knowledge, wants: Wants, weights: Floats) -> tuple[Staircase, Vectors]:
    """The frontier of what was evaluated and is wanted, and its rows; the cheapest rows where there is none."""
    spent = known.costs @ weights
    kept = np.flatnonzero(wants.kept(known.accuracies, known.costs))
    corner = wants.corner(weights)
    front = Staircase.of(spent[kept], known.accuracies[kept], corner)
    rows = kept[members(spent[kept], known.accuracies[kept], corner)]
    return front, rows if len(rows) else np.argsort(spent, kind="stable")[:FEW]


def _candidates(
    known: Knowledge, wants: Wants, shape: Sequence[int], weights: Floats, optimism: float
) -> tuple[Vectors, Floats, Floats]:
    """Level indices with predicted accuracies and costs: of a child, its parent's and the predicted difference."""
    _, rows = _front(known, wants, weights)
    parents = known.vectors[rows]
    changed, origins = single_changes(parents, shape)
    missed = known.accuracies[rows] - known.accuracy.of(parents)
    missed_costs = known.costs[rows] - known.predicted_costs(parents)
    best = best_by_cost(known.accuracy.terms, added(known.cost_terms, weights)).vectors
    accuracies = np.concatenate([known.accuracy.of(changed) + missed[origins], known.accuracy.of(best) - optimism])
    costs = np.concatenate([known.predicted_costs(changed) + missed_costs[origins], known.predicted_costs(best)])
    return np.concatenate([changed, best]), accuracies, costs
