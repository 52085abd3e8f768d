import numpy as np
import pytest

from wenet_runtime.pareto import hypervolume
from wenet_trainer.explore.staircase import Staircase, pick

CORNER = (1.0, 0.2)


def plain(costs, values):
    return hypervolume(list(zip(costs, values, strict=True)), CORNER)


@pytest.mark.parametrize("seed", range(10))
def test_a_gain_is_the_difference_of_two_hypervolumes(seed):
    rng = np.random.default_rng(seed)
    costs, values = rng.random((2, int(rng.integers(0, 12))))
    front = Staircase.of(costs, values, CORNER)
    more = rng.random((2, 30)) * 1.2
    expected = [
        plain([*costs, cost], [*values, value]) - plain(costs, values)
        for cost, value in zip(more[0], more[1], strict=True)
    ]
    assert front.gains(more[0], more[1]) == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_points_are_picked_as_by_recomputing_every_gain(seed):
    rng = np.random.default_rng(seed)
    costs, values = rng.random((2, 300))
    front = Staircase.of(costs[:5], values[:5] * 0.5, CORNER)
    expected, grown = [], front
    for _ in range(8):
        gains = grown.gains(costs, values)
        if gains.max() <= 0:
            break
        expected.append(int(gains.argmax()))
        grown = grown.plus(float(costs[expected[-1]]), float(values[expected[-1]]))
    assert pick(front, costs, values, 8) == expected


def test_many_equal_points_are_picked_once():
    front = Staircase.of(np.empty(0), np.empty(0), CORNER)
    costs, values = np.repeat([0.5, 0.6], 200), np.repeat([0.5, 0.7], 200)
    assert pick(front, costs, values, 8) == [200, 0]


def test_nothing_is_picked_where_nothing_adds():
    front = Staircase.of(np.array([0.1]), np.array([0.9]), CORNER)
    assert pick(front, np.array([0.1, 0.5]), np.array([0.9, 0.4]), 5) == []
    assert pick(front, np.empty(0), np.empty(0), 5) == []
