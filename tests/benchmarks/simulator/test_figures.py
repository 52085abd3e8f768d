import math

import numpy as np
import pytest

from benchmarks.simulator import disturbances
from benchmarks.simulator.figures import Interval, Score, compare, misses_after_steps, score
from benchmarks.simulator.oracle import clairvoyant
from benchmarks.simulator.world import EXPIRED, IN_TIME, LATE, REFUSED, Played, play
from tests.benchmarks.simulator.worlds import TWO, Scripted, world


def a_score(attainment, accuracy):
    return Score(attainment, accuracy, 0, 0, 0, 0, 0, 0, 0, 0, ())


def test_a_run_is_judged_as_by_hand():
    w = world([0.0, 0.001, 0.2, 0.3], 35)
    found = score(w, play(w, Scripted([1, 1, 0, None])), clairvoyant(w, step_ms=0.1))
    assert (found.attainment, found.late, found.refused) == (0.5, 0.25, 0.25)
    assert found.accuracy == pytest.approx(0.7)
    assert found.accuracy_all == pytest.approx(0.35)
    # The clairvoyant answers all: small, small, large, large; or any two of them with the large mode.
    assert found.regret == pytest.approx((0.6 + 0.6 + 0.8 + 0.8) / 4 - 0.35)
    assert found.behind == pytest.approx(0.8 - 0.7)
    assert found.switches == pytest.approx(1 / 3)
    board_mj = 70 * (TWO.above_idle_w + TWO.idle_w) + (300 - 70) * TWO.idle_w
    assert found.energy_mj == pytest.approx(board_mj / 4)


def test_a_run_without_answers_has_no_accuracy():
    w = world([0.0], 5)
    found = score(w, play(w, Scripted([None])), clairvoyant(w))
    assert math.isnan(found.accuracy)
    assert (found.attainment, found.regret) == (0, 0)


def test_an_interval_is_students():
    one = Interval.of([1.0, 2.0, 4.0])
    assert one.mean == pytest.approx(7 / 3)
    assert one.half == pytest.approx(4.303 * np.std([1, 2, 4], ddof=1) / 3**0.5)
    assert Interval.of([3.0]) == Interval(3.0, math.inf)
    assert Interval.of([1.0, math.nan, 2.0]) == Interval.of([1.0, 2.0])


def test_the_victims_of_a_step_are_those_that_wait_and_those_that_come_after():
    w = world(np.arange(12) * 0.1, 150, disturbance=disturbances.steps(2, 1.0, (2.0,)))  # slow from 0.5 s
    outcome = np.full(12, IN_TIME, dtype=np.int8)
    outcome[[0, 4, 6, 9]] = [LATE, EXPIRED, REFUSED, LATE]
    played = Played(outcome, np.zeros(12, dtype=np.int8), np.zeros(12), 0, 0, 0, 0, 0)
    # Request 0 was over before; 4 was due at 0.55 s; 9 is beyond the four that are looked at.
    assert misses_after_steps(w, played, 4) == (2,)


def test_attainment_decides_where_it_differs_and_accuracy_where_it_does_not():
    better = compare([[a_score(0.99, 0.6), a_score(0.98, 0.6)]], [[a_score(0.90, 0.7), a_score(0.89, 0.7)]])
    assert (better.result, better.by) == (1, "attainment")
    worse = compare([[a_score(0.99, 0.60), a_score(0.98, 0.61)]], [[a_score(0.98, 0.70), a_score(0.99, 0.71)]])
    assert (worse.result, worse.by) == (-1, "accuracy")
    same = [[a_score(0.9, 0.7), a_score(0.8, 0.6)]]
    assert compare(same, same).result == 0


def test_cases_are_averaged_before_seeds_are_compared():
    ours = [[a_score(1.0, 0.7), a_score(1.0, 0.7)], [a_score(0.8, 0.7), a_score(0.8, 0.7)]]
    theirs = [[a_score(0.9, 0.7), a_score(0.8, 0.7)], [a_score(0.9, 0.7), a_score(1.0, 0.7)]]
    assert compare(ours, theirs).attainment.mean == pytest.approx(0.0)
