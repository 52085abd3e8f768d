import pytest

from benchmarks.simulator.device import Device
from benchmarks.simulator.players.slackfit import Pick, SlackFit, buckets
from tests.benchmarks.simulator.worlds import TWO, setup


def test_a_bucket_keeps_its_largest_batch_then_the_most_accurate():
    picks = [Pick(10, 1, 0.6, 0), Pick(19, 2, 0.6, 0), Pick(18, 1, 0.9, 1), Pick(20, 2, 0.7, 1), Pick(30, 1, 0.8, 2)]
    low, width, found = buckets(picks, 2)
    assert (low, width) == (10, 10)
    assert [(pick.latency_ms, pick.rows) for pick in found] == [(10, 1), (20, 2), (30, 1)]


def test_an_empty_bucket_takes_the_next_lower_ones_pick():
    _, _, found = buckets([Pick(10, 1, 0.6, 0), Pick(50, 1, 0.8, 1)], 4)
    assert [pick.mode for pick in found] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(("slack_ms", "mode"), [(1, 0), (10, 0), (29, 0), (30, 1), (1000, 1)])
def test_the_bucket_just_below_the_slack_is_taken(slack_ms, mode):
    assert SlackFit(setup()).pick(slack_ms).mode == mode


def test_no_pick_is_ever_slower_than_the_slack_allows():
    player = SlackFit(setup(Device("d", "", TWO.modes, fixed_share=0.5), max_batch=4))
    for slack in range(10, 120):
        assert player.pick(slack).latency_ms <= slack * (1 + 1e-9)


def test_it_runs_as_many_of_those_that_wait_as_its_batch_holds():
    player = SlackFit(setup(Device("d", "", TWO.modes, fixed_share=0.5), max_batch=4))
    for index in range(3):
        player.arrive(index, 0.0, 500, 1)
    assert player.next(0.0) == ((0, 1, 2), 1)
