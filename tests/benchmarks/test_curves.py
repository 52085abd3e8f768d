import numpy as np
import pytest

from benchmarks.curves import at, common_range, curve, operating_points, over_seeds, paired
from benchmarks.trained import Mode


def test_a_curve_is_chosen_by_validation_and_told_by_test():
    modes = [
        Mode(100, validation=0.9, test=0.5),
        Mode(50, validation=0.7, test=0.8),
        Mode(70, validation=0.6, test=0.99),  # a cheaper one is better on validation: no point, whatever the test says
        Mode(80, validation=0.8, test=None),  # not tested
    ]
    assert curve(modes) == [(50.0, 0.8), (100.0, 0.5)]


def test_a_point_below_the_line_between_two_others_is_none():
    ends = [Mode(10, 0.5, 0.5), Mode(30, 0.7, 0.7)]
    assert curve([*ends, Mode(20, 0.59, 0.99)]) == [(10.0, 0.5), (30.0, 0.7)]
    assert curve([*ends, Mode(20, 0.61, 0.2)]) == [(10.0, 0.5), (20.0, 0.2), (30.0, 0.7)]


def test_of_two_at_one_cost_the_better_on_validation_is_taken():
    assert curve([Mode(50, 0.6, 0.9), Mode(50, 0.7, 0.1)]) == [(50.0, 0.1)]


def test_operating_points_are_a_uniform_grid_over_what_both_reach():
    low, high = common_range([[10, 50, 100], [20, 200]])
    assert (low, high) == (20.0, 100.0)
    points = operating_points(low, high)
    assert len(points) >= 20
    assert (points[0], points[-1]) == (20.0, 100.0)
    assert np.allclose(np.diff(points), np.diff(points)[0])


def test_between_points_the_curve_is_straight_and_beyond_them_flat():
    assert at([(10.0, 0.2), (20.0, 0.4)], np.array([5.0, 15.0, 30.0])).tolist() == pytest.approx([0.2, 0.3, 0.4])


def test_errors_of_a_difference_are_those_of_pairs():
    rng = np.random.default_rng(0)
    theirs = rng.random(10_000) < 0.7
    ours = theirs.copy()
    ours[:100] = ~ours[:100]  # they disagree on a hundred images only
    difference, error = paired(ours, theirs)
    assert difference == pytest.approx(100 * (ours.mean() - theirs.mean()))
    assert error == pytest.approx(0.1, rel=0.05)
    assert paired(theirs, theirs) == (0.0, 0.0)


def test_seeds_give_a_mean_and_its_error():
    assert over_seeds([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1 / 3**0.5))
