import pytest

from benchmarks.simulator.device import Device
from benchmarks.simulator.players.ours import Ours
from benchmarks.simulator.world import IN_TIME, REFUSED, play
from tests.benchmarks.simulator.worlds import TWO, setup, world


def test_the_daemons_scheduler_plays_by_the_simulators_rules():
    played = play(world([0.0, 0.2, 0.4], 60), Ours(setup(), 0.99))
    assert played.outcome.tolist() == [IN_TIME] * 3
    assert played.mode.tolist() == [1, 1, 1]


def test_what_cannot_be_met_is_refused_on_arrival():
    assert not Ours(setup(), 0.99).arrive(0, 0.0, 5, 1)
    played = play(world([0.0, 0.0, 0.0, 0.0], 25), Ours(setup(), 0.99))
    assert played.outcome.tolist() == [IN_TIME, IN_TIME, REFUSED, REFUSED]


def test_batches_are_put_together_where_they_pay():
    device = Device("batches", "", TWO.modes, fixed_share=0.8)
    player = Ours(setup(device, max_batch=4), 0.99)
    played = play(world([0.0, 0.001, 0.002, 0.003], 60, device=device), player)
    assert played.outcome.tolist() == [IN_TIME] * 4
    assert played.runs < 4


def test_a_notice_of_the_clock_changes_what_is_predicted():
    player = Ours(setup(), 0.99)
    before = player.controller.forecast(1).medians_ms[0]
    player.clock_changed(0.5, 0.0)
    assert player.controller.forecast(1).medians_ms[0] == pytest.approx(2 * before)
