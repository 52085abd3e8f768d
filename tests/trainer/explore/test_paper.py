import pytest

from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.paper import Candidate, explore
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


def toy(threshold):
    calls = []

    def look_up(column):
        def read(config):
            calls.append((column, dict(config)))
            return TABLE[config["a"], config["b"]][column]

        return read

    found = explore(SPACE.full(), SPACE.neighbours, look_up(0), look_up(1), threshold)
    return found, calls


def test_each_step_takes_the_least_time_per_accuracy_and_keeps_all_candidates():
    found, _ = toy(0.0)
    assert [tuple(step.chosen.groups.values()) for step in found.steps] == [(1, 2), (2, 2), (4, 2)]
    assert [len(step.candidates) for step in found.steps] == [2, 1, 1]
    assert [round(candidate.loss, 2) for candidate in found.steps[0].candidates] == [10.0, 7.95]
    assert found.start == Candidate(SPACE.full(), 0.90, 10.0)


def test_without_a_threshold_the_search_ends_at_the_smallest_network():
    found, _ = toy(0.0)
    assert found.result.groups == SPACE.smallest()


@pytest.mark.parametrize(
    ("threshold", "result", "steps"), [(0.6, (2, 2), 3), (0.70, (2, 2), 3), (0.75, (1, 2), 2), (0.89, (1, 1), 1)]
)
def test_the_last_network_at_or_above_the_threshold_is_returned(threshold, result, steps):
    found, _ = toy(threshold)
    assert tuple(found.result.groups.values()) == result
    assert found.result.accuracy >= threshold
    assert len(found.steps) == steps  # the step below is on record
    assert found.steps[-1].chosen.accuracy < threshold


def test_a_full_network_below_the_threshold_is_refused():
    with pytest.raises(ExploreError, match=r"accuracy 0.9000 is below the threshold 0.9500"):
        toy(0.95)


def test_a_network_that_is_never_right_has_an_infinite_loss():
    assert Candidate(GroupConfig({"a": 1}), 0.0, 1.0).loss == float("inf")
