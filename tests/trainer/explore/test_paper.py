import pytest

from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.paper import explore, loss
from wenet_trainer.explore.problem import Cost, Limits, Problem, Seen
from wenet_trainer.space import GroupConfig, SearchSpace

SPACE = SearchSpace({"a": (1, 2, 4), "b": (1, 2)}, (("a",), ("b",)))
# (a, b) → accuracy, ms. Raising b first is the better bargain, then a.
TABLE = {
    (1, 1): (0.90, 10.0),
    (2, 1): (0.80, 8.0),  # loss 10.0
    (1, 2): (0.88, 7.0),  # loss 7.95, taken
    (2, 2): (0.70, 4.0),
    (4, 2): (0.40, 3.0),
}


def toy(threshold, evaluations=250):
    calls = []

    def accuracies(configs):
        calls.append([(config["a"], config["b"]) for config in configs])
        return [TABLE[one][0] for one in calls[-1]]

    problem = Problem(
        SPACE,
        accuracies,
        lambda config: Cost(TABLE[config["a"], config["b"]][1]),
        limits=Limits(min_accuracy=threshold),
        evaluations=evaluations,
    )
    return explore(problem), calls


def test_each_step_takes_the_least_time_per_accuracy_and_keeps_all_candidates():
    found, calls = toy(0.0)
    assert calls == [[(1, 1)], [(2, 1), (1, 2)], [(2, 2)], [(4, 2)]]  # each step's candidates in one call
    assert [(one.groups["a"], one.groups["b"]) for one in found.seen] == [one for call in calls for one in call]
    assert [round(loss(one), 2) for one in found.seen[1:3]] == [10.0, 7.95]
    assert found.seen[0] == Seen(SPACE.full(), 0.90, Cost(10.0), "algorithm 2")


def test_without_a_threshold_the_search_ends_at_the_smallest_network():
    found, _ = toy(0.0)
    assert found.result == SPACE.smallest()


@pytest.mark.parametrize(
    ("threshold", "result", "steps"), [(0.6, (2, 2), 3), (0.70, (2, 2), 3), (0.75, (1, 2), 2), (0.89, (1, 1), 1)]
)
def test_the_last_network_at_or_above_the_threshold_is_returned(threshold, result, steps):
    found, calls = toy(threshold)
    assert found.result is not None
    assert tuple(found.result.values()) == result
    assert len(calls) == 1 + steps  # the step below is on record
    assert TABLE[calls[-1][-1]][0] < threshold


def test_a_bound_on_evaluations_does_not_end_it():
    found, _ = toy(0.0, evaluations=2)
    assert len(found.seen) == len(TABLE)


def test_a_full_network_below_the_threshold_is_refused():
    with pytest.raises(ExploreError, match=r"accuracy 0.9000 is below the threshold 0.9500"):
        toy(0.95)


def test_a_network_that_is_never_right_has_an_infinite_loss():
    assert loss(Seen(GroupConfig({"a": 1}), 0.0, Cost(1.0), "")) == float("inf")
