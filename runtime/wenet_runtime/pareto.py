"""Dominance, frontiers, hypervolume, and which points of a front to keep.

A point is its costs, to be minimised, and last its value, to be maximised. All are finite.
"""

import heapq
from typing import Dict, List, Sequence, Tuple

import numpy as np

Point = Tuple[float, float]
MARGIN = 1.05  # the reference of `spread` lies beyond the dearest point, so that this one counts too
LEAST = 0.01  # and below the least value


def pareto_front(points: Sequence[Point]) -> List[int]:
    """Indices of the points (cost, value) that no other point dominates, by ascending cost.

    A point dominates another when it costs no more, is worth no less, and differs in one of them.
    Of equal points the first is kept.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1], index))
    found: List[int] = []
    best = float("-inf")
    for index in order:
        if points[index][1] > best:
            found.append(index)
            best = points[index][1]
    return found


def front(points: Sequence[Sequence[float]]) -> List[int]:
    """The same for points of any number of costs and a value last: indices in the order of the costs.

    Args:
        points: all of the same length, at least 2.
    """
    if not points:
        return []
    # All to be minimised. Sorted so, a point comes before all that it dominates.
    signed = np.array([[*point[:-1], -point[-1]] for point in points], dtype=float)
    order = np.lexsort(signed.T[::-1])  # stable: of equal points the first comes first
    kept = np.empty_like(signed)
    found: List[int] = []
    for index in order:
        if not (kept[: len(found)] <= signed[index]).all(axis=1).any():
            kept[len(found)] = signed[index]
            found.append(int(index))
    return found


def upper_hull(points: Sequence[Point]) -> List[int]:
    """The points that no mix of two others equals or beats, by ascending cost and value.

    The first is the cheapest, the last the best; each step gains less value per cost than the one before.
    """
    hull: List[int] = []
    for at in sorted(range(len(points)), key=lambda one: (points[one][0], -points[one][1])):
        cost, value = points[at]
        if hull and value <= points[hull[-1]][1]:
            continue
        while len(hull) > 1:
            (first_cost, first_value), (middle_cost, middle_value) = points[hull[-2]], points[hull[-1]]
            if (middle_value - first_value) * (cost - first_cost) > (value - first_value) * (middle_cost - first_cost):
                break
            hull.pop()
        hull.append(at)
    return hull


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Area or volume dominated by the points and bounded by `reference` (the highest costs, the lowest value).

    Points beyond the reference add nothing.

    Args:
        points: (cost, value), or (cost, cost, value).
        reference: of as many coordinates.

    Raises:
        ValueError: of other numbers of coordinates.
    """
    if len(reference) not in (2, 3) or any(len(point) != len(reference) for point in points):
        raise ValueError(f"hypervolume is of 2 or 3 coordinates, the reference has {len(reference)}")
    inside = [
        point
        for point in points
        if point[-1] > reference[-1] and all(cost < most for cost, most in zip(point[:-1], reference[:-1]))
    ]
    return _area(inside, reference) if len(reference) == 2 else _volume(inside, reference)


def _area(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    steps = [points[index] for index in pareto_front([(point[0], point[-1]) for point in points])]
    area = 0.0
    for number, step in enumerate(steps):
        until = steps[number + 1][0] if number + 1 < len(steps) else reference[0]
        area += (until - step[0]) * (step[-1] - reference[-1])
    return area


def _volume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Slab by slab along the second cost: each is as thick as to the next point, and as wide as all before it."""
    ordered = sorted(points, key=lambda point: point[1])
    steps: List[Sequence[float]] = []  # the front of cost and value so far
    area = volume = 0.0
    for number, point in enumerate(ordered):
        if not any(step[0] <= point[0] and step[-1] >= point[-1] for step in steps):
            steps = [step for step in steps if not (point[0] <= step[0] and point[-1] >= step[-1])] + [point]
            area = _area(steps, reference)
        until = ordered[number + 1][1] if number + 1 < len(ordered) else reference[1]
        volume += area * (until - point[1])
    return volume


def spread(points: Sequence[Sequence[float]], keep: int, always: Sequence[int] = ()) -> List[int]:
    """Which points of a front to keep, so that the others are missed least.

    Args:
        points: (cost, value), or (cost, cost, value), of a front.
        keep: how many.
        always: indices that stay, even if they are more than `keep`.

    Returns:
        Indices by ascending cost; repeatedly the point that adds least hypervolume has gone.
    """
    kept = sorted(range(len(points)), key=lambda index: tuple(points[index]))
    if len(kept) <= keep:
        return kept
    costs = [max(point[axis] for point in points) * MARGIN for axis in range(len(points[0]) - 1)]
    reference = [*costs, min(point[-1] for point in points) - LEAST]
    # What a point adds only grows as others go, so what it added once is a lower bound, and most need no new look.
    place: Dict[int, int] = {index: position for position, index in enumerate(kept)}
    queue = [(_added(points, kept, index, reference), place[index]) for index in kept if index not in always]
    order = list(kept)
    heapq.heapify(queue)
    while len(kept) > keep and queue:
        _, position = heapq.heappop(queue)
        now = (_added(points, kept, order[position], reference), position)
        if queue and now > queue[0]:
            heapq.heappush(queue, now)
        else:
            kept.remove(order[position])
    return kept


def _added(points: Sequence[Sequence[float]], kept: Sequence[int], index: int, reference: Sequence[float]) -> float:
    """The hypervolume that only this one of the kept points dominates."""
    own = points[index]
    shared = [
        [*(max(cost, other) for cost, other in zip(own[:-1], points[one][:-1])), min(own[-1], points[one][-1])]
        for one in kept
        if one != index
    ]
    return hypervolume([own], reference) - hypervolume(shared, reference)
