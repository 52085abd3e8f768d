"""Frontiers and hypervolumes, against definitions computed the slow way."""

from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenet_runtime.pareto import hypervolume, pareto_front

# Few distinct values, so that ties and duplicates are common.
POINTS = st.lists(st.tuples(st.integers(0, 8).map(float), st.integers(0, 8).map(float)), max_size=12)
SIDE = 9


def dominates(one: Tuple[float, float], other: Tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(POINTS)
def test_the_front_is_exactly_what_nothing_dominates(points: List[Tuple[float, float]]) -> None:
    wanted = {one for one in points if not any(dominates(other, one) for other in points)}
    front = pareto_front(points)
    assert {points[index] for index in front} == wanted
    assert len(front) == len(wanted)  # of equal points one is kept


@given(POINTS)
def test_the_front_is_in_order_of_cost_and_worth(points: List[Tuple[float, float]]) -> None:
    front = [points[index] for index in pareto_front(points)]
    assert front == sorted(front)
    assert [value for _, value in front] == sorted({value for _, value in front})


@given(POINTS)
def test_of_equal_points_the_first_is_kept(points: List[Tuple[float, float]]) -> None:
    assert all(points.index(points[index]) == index for index in pareto_front(points))


@given(POINTS)
def test_the_hypervolume_is_the_number_of_dominated_unit_squares(points: List[Tuple[float, float]]) -> None:
    squares = sum(any(cost <= x and value >= y + 1 for cost, value in points) for x in range(SIDE) for y in range(SIDE))
    assert hypervolume(points, (float(SIDE), 0.0)) == pytest.approx(squares)


@given(POINTS, st.tuples(st.integers(0, 8).map(float), st.integers(0, 8).map(float)))
def test_another_point_never_takes_hypervolume_away(
    points: List[Tuple[float, float]], more: Tuple[float, float]
) -> None:
    reference = (6.0, 2.0)
    assert hypervolume([*points, more], reference) >= hypervolume(points, reference)


def test_points_beyond_the_reference_add_nothing() -> None:
    assert hypervolume([(5.0, 3.0), (1.0, 1.0)], (5.0, 1.0)) == 0
    assert hypervolume([(1.0, 3.0)], (5.0, 1.0)) == 8
    assert hypervolume([], (5.0, 1.0)) == 0
