"""Dominance, frontiers and hypervolume of points (cost to minimise, value to maximise)."""

from typing import List, Sequence, Tuple

Point = Tuple[float, float]


def pareto_front(points: Sequence[Point]) -> List[int]:
    """Indices of the points that no other point dominates, by ascending cost.

    A point dominates another when it costs no more, is worth no less, and differs in one of them.
    Of equal points the first is kept.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1], index))
    front: List[int] = []
    best = float("-inf")
    for index in order:
        if points[index][1] > best:
            front.append(index)
            best = points[index][1]
    return front


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Area dominated by the points and bounded by `reference` (the highest cost, the lowest value).

    Points beyond the reference add nothing.
    """
    front = [points[index] for index in pareto_front(points)]
    front = [(cost, value) for cost, value in front if cost < reference[0] and value > reference[1]]
    area = 0.0
    for index, (cost, value) in enumerate(front):
        until = front[index + 1][0] if index + 1 < len(front) else reference[0]
        area += (until - cost) * (value - reference[1])
    return area
