import numpy as np
import pytest

from benchmarks.simulator import disturbances


def at(disturbance, seconds, share):
    return disturbance.slowdown(np.array(seconds, dtype=float), share).tolist()


def test_a_quiet_device_is_never_slower():
    assert at(disturbances.none(), [0, 5, 1e6], 0.5) == [1, 1, 1]


def test_steps_go_on_and_off_with_each_factor_in_turn():
    steps = disturbances.steps(60, 10, (1.5, 2.0))
    assert at(steps, [0, 4.99, 5, 9.99, 10, 15, 25], 0.3) == [1, 1, 1.5, 1.5, 1, 2, 1.5]
    assert steps.worse_s[:3] == (5, 15, 25)


def test_contention_hits_modes_by_their_share_of_memory():
    contention = disturbances.contention(20, 10, compute=1.2, memory=1.8)
    assert [at(contention, [6], share)[0] for share in (0, 0.5, 1)] == pytest.approx([1.2, 1.5, 1.8])
    assert at(contention, [3, 11], 1.0) == [1, 1]


def test_a_sawtooth_rises_to_its_peak_and_falls_at_once():
    sawtooth = disturbances.sawtooth(20, 10, peak=1.8)
    before, after = at(sawtooth, [9.99, 10], 0)
    assert before == pytest.approx(1.8, abs=0.03)
    assert after == 1
    rising = at(sawtooth, np.linspace(0, 9.9, 50), 0)
    assert rising == sorted(rising)
    assert at(sawtooth, [9.99], 1.0)[0] < before


def test_a_noticed_clock_change_tells_when_and_by_how_much():
    told = disturbances.clock(20, 10, noticed=True, factor=1.6)
    assert told.notices == ((5, pytest.approx(1 / 1.6)), (10, pytest.approx(1.6)), (15, pytest.approx(1 / 1.6)))
    untold = disturbances.clock(20, 10, noticed=False, factor=1.6)
    assert untold.notices == ()
    assert at(untold, [6], 0) == at(told, [6], 0) == [1.6]


def test_a_lost_meter_slows_nothing():
    lost = disturbances.meter_loss(20, 10)
    assert at(lost, [1, 6], 0.5) == [1, 1]
    assert lost.metered[lost.piece(np.array([1.0, 6.0, 11.0]))].tolist() == [True, False, True]
