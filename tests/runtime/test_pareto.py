"""Frontiers and hypervolumes, against definitions computed the slow way."""

import itertools
from typing import Any, List, Sequence, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenet_runtime.pareto import front, hypervolume, pareto_front, spread

# Few distinct values, so that ties and duplicates are common.
NUMBERS = st.integers(0, 8).map(float)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12)
POINTS_3 = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=10)
ANY_POINTS = st.integers(2, 4).flatmap(lambda size: st.lists(st.tuples(*[NUMBERS] * size), max_size=12))
SIDE = 9


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    cheap = all(mine <= its for mine, its in zip(one[:-1], other[:-1]))
    return cheap and one[-1] >= other[-1] and one != other


@given(POINTS)
def test_the_front_is_exactly_what_nothing_dominates(points: List[Tuple[float, float]]) -> None:
    wanted = {one for one in points if not any(dominates(other, one) for other in points)}
    found = pareto_front(points)
    assert {points[index] for index in found} == wanted
    assert len(found) == len(wanted)  # of equal points one is kept


@given(POINTS)
def test_the_front_is_in_order_of_cost_and_worth(points: List[Tuple[float, float]]) -> None:
    found = [points[index] for index in pareto_front(points)]
    assert found == sorted(found)
    assert [value for _, value in found] == sorted({value for _, value in found})


@given(POINTS)
def test_of_equal_points_the_first_is_kept(points: List[Tuple[float, float]]) -> None:
    assert all(points.index(points[index]) == index for index in pareto_front(points))


@given(ANY_POINTS)
def test_with_any_number_of_costs_the_front_is_exactly_what_nothing_dominates(points: List[Any]) -> None:
    wanted = {one for one in points if not any(dominates(other, one) for other in points)}
    found = front(points)
    assert {points[index] for index in found} == wanted
    assert all(points.index(points[index]) == index for index in found)  # the first of equal ones
    assert [points[index][:-1] for index in found] == sorted(points[index][:-1] for index in found)


@given(POINTS)
def test_with_one_cost_both_fronts_are_the_same(points: List[Tuple[float, float]]) -> None:
    assert front(points) == pareto_front(points)


@given(POINTS)
def test_the_hypervolume_is_the_number_of_dominated_unit_squares(points: List[Tuple[float, float]]) -> None:
    squares = sum(any(cost <= x and value >= y + 1 for cost, value in points) for x in range(SIDE) for y in range(SIDE))
    assert hypervolume(points, (float(SIDE), 0.0)) == pytest.approx(squares)


@given(POINTS_3)
def test_the_hypervolume_of_two_costs_is_the_number_of_dominated_unit_cubes(
    points: List[Tuple[float, float, float]],
) -> None:
    x, y, z = np.meshgrid(range(SIDE), range(SIDE), range(SIDE), indexing="ij")
    cubes = np.zeros(x.shape, bool)
    for ms, mj, value in points:
        cubes |= (ms <= x) & (mj <= y) & (value >= z + 1)
    assert hypervolume(points, (float(SIDE), float(SIDE), 0.0)) == pytest.approx(cubes.sum())


def included_and_excluded(points: Any, reference: Any) -> float:
    """The union of boxes by inclusion and exclusion."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for some in itertools.combinations(points, size):
            corner = np.max(some, axis=0)
            total -= (-1) ** size * float(np.prod(np.maximum(reference - corner, 0)))
    return total


@pytest.mark.parametrize("costs", [1, 2])
def test_the_hypervolume_of_real_numbers_is_that_of_a_union_of_boxes(costs: int) -> None:
    random = np.random.default_rng(costs)
    reference = np.full(costs + 1, 0.9)
    for _ in range(20):
        points = random.uniform(0, 1, (7, costs + 1))
        signed = np.concatenate([points[:, :-1], -points[:, -1:]], axis=1)
        found = hypervolume(points.tolist(), [*reference[:-1], -reference[-1] + 1])
        signed_reference = np.array([*reference[:-1], reference[-1] - 1])
        assert found == pytest.approx(included_and_excluded(signed, signed_reference))


@given(POINTS, st.tuples(NUMBERS, NUMBERS))
def test_another_point_never_takes_hypervolume_away(
    points: List[Tuple[float, float]], more: Tuple[float, float]
) -> None:
    reference = (6.0, 2.0)
    assert hypervolume([*points, more], reference) >= hypervolume(points, reference)


def test_points_beyond_the_reference_add_nothing() -> None:
    assert hypervolume([(5.0, 3.0), (1.0, 1.0)], (5.0, 1.0)) == 0
    assert hypervolume([(1.0, 3.0)], (5.0, 1.0)) == 8
    assert hypervolume([], (5.0, 1.0)) == 0
    assert hypervolume([(1.0, 5.0, 3.0), (5.0, 1.0, 3.0)], (5.0, 5.0, 1.0)) == 0
    assert hypervolume([(1.0, 3.0, 3.0)], (5.0, 5.0, 1.0)) == 16


def test_a_hypervolume_of_other_numbers_of_coordinates_is_refused() -> None:
    with pytest.raises(ValueError, match="2 or 3 coordinates, the reference has 4"):
        hypervolume([], (1.0, 1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="the reference has 2"):
        hypervolume([(1.0, 1.0, 1.0)], (1.0, 1.0))


def spread_plainly(points: Sequence[Sequence[float]], keep: int, always: Sequence[int]) -> List[int]:
    """The definition: repeatedly the point without which the hypervolume stays largest goes."""
    kept = sorted(range(len(points)), key=lambda index: points[index])
    reference = [max(point[axis] for point in points) * 1.05 for axis in range(len(points[0]) - 1)]
    reference.append(min(point[-1] for point in points) - 0.01)
    while len(kept) > keep and set(kept) - set(always):
        spare = [index for index in kept if index not in always]
        left = {gone: hypervolume([points[i] for i in kept if i != gone], reference) for gone in spare}
        kept.remove(max(spare, key=left.__getitem__))
    return kept


@pytest.mark.parametrize("costs", [1, 2])
def test_spreading_a_front_is_what_its_definition_says(costs: int) -> None:
    random = np.random.default_rng(costs)
    for number in range(12):
        drawn = random.uniform(0, 1, (30, costs + 1)).tolist()
        points = [drawn[index] for index in front(drawn)]
        always = [0, len(points) - 1] if number % 3 else []
        for keep in (1, 2, 4, len(points) - 1, 40):
            assert spread(points, keep, always) == spread_plainly(points, keep, always)


@pytest.mark.parametrize("costs", [1, 2])
def test_spreading_what_is_no_front_keeps_as_much_as_its_definition(costs: int) -> None:
    random = np.random.default_rng(costs)
    reference = [1.05] * costs + [-0.01]
    for keep in (1, 2, 4, 9):
        points = random.integers(1, 20, (12, costs + 1)) / 20  # some dominated, some equal
        found, plain = (
            hypervolume([points[index].tolist() for index in way(points.tolist(), keep, [3])], reference)
            for way in (spread, spread_plainly)
        )
        assert found == pytest.approx(plain)


def test_spreading_drops_the_points_that_are_missed_least() -> None:
    points = [(1.0, 0.5), (2.0, 0.8), (2.1, 0.801), (5.0, 0.95)]
    assert spread(points, 3) == [0, 1, 3]
    assert spread(points, 4) == [0, 1, 2, 3]
    assert 2 in spread(points, 2, always=[0, 2])


def test_spreading_keeps_equal_points_only_once_there_is_room() -> None:
    assert spread([(1.0, 0.5), (1.0, 0.5), (2.0, 0.8)], 2) == [1, 2]


def test_spreading_nothing_keeps_nothing() -> None:
    assert spread([], 3) == []
