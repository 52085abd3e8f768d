import numpy as np
import pytest

from tests.trainer.explore.toys import every, whole_terms
from wenet_trainer.explore.programme import best_by_cost
from wenet_trainer.explore.terms import Terms


def plain(value, cost, vectors):
    """(cost, value) of everything that nothing else is cheaper than and as good as."""
    best, front = -np.inf, []
    for price, gain in sorted(zip(cost.of(vectors), value.of(vectors), strict=True), key=lambda one: (one[0], -one[1])):
        if gain > best:
            front.append((price, gain))
            best = gain
    return front


def whole_bins(cost):
    """As many bins as the range has whole numbers, so that a bin is 1 wide."""
    chain = cost.chain()
    steps = [chain.alone[0]]
    steps += [
        chain.pairs.get((knob - 1, knob), np.zeros((1, 1))) + one for knob, one in enumerate(chain.alone) if knob > 0
    ]
    return int(sum(step.max() - step.min() for step in steps))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("coupled", ["nothing", "costs", "values", "both"])
def test_the_programme_finds_the_frontier_that_trying_everything_finds(seed, coupled):
    rng = np.random.default_rng(seed)
    shape = tuple(int(levels) for levels in rng.integers(1, 5, rng.integers(1, 6)))
    neighbours = [(knob, knob + 1) for knob in range(len(shape) - 1)]
    value = whole_terms(shape, rng, neighbours if coupled in ("values", "both") else [])
    cost = whole_terms(shape, rng, neighbours if coupled in ("costs", "both") else [])
    vectors = every(shape)
    front = best_by_cost(value, cost, max(whole_bins(cost), 1))
    assert list(zip(front.costs, front.values, strict=True)) == plain(value, cost, vectors)
    assert np.array_equal(value.of(front.vectors), front.values)
    assert np.array_equal(cost.of(front.vectors), front.costs)


def test_without_the_terms_of_pairs_the_frontier_would_be_missed():
    rng = np.random.default_rng(3)
    shape = (4, 4, 4, 4)
    value = whole_terms(shape, rng)
    cost = whole_terms(shape, rng, [(0, 1), (1, 2), (2, 3)])
    blind = best_by_cost(value, Terms(cost.constant, cost.alone), 1000)
    found = list(zip(cost.of(blind.vectors), blind.values, strict=True))
    assert sorted(found) != plain(value, cost, every(shape))


def test_few_bins_find_nearly_as_much_on_a_large_space():
    rng = np.random.default_rng(0)
    shape = (5,) * 52
    cost = Terms(0.0, tuple(-np.sort(rng.random(5)) for _ in shape))
    value = Terms(0.0, tuple(-np.sort(rng.random(5)) for _ in shape))
    coarse, fine = best_by_cost(value, cost, 500), best_by_cost(value, cost, 4000)
    missing = np.interp(fine.costs, coarse.costs, coarse.values) - fine.values
    assert missing.min() > -0.02 * (fine.values.max() - fine.values.min())


def test_costs_that_do_not_differ_leave_the_best_value():
    value = Terms(0.0, (np.array([0.0, 2.0]), np.array([3.0, 1.0])))
    front = best_by_cost(value, Terms(5.0, (np.zeros(2), np.zeros(2))))
    assert front.vectors.tolist() == [[1, 0]]
    assert (front.values.tolist(), front.costs.tolist()) == ([5.0], [5.0])
