"""Time and rates from a clock that misbehaves."""

import math
import random

import pytest

from wenet_runtime.steady_clock import ArrivalRate, SteadyClock


def test_steps_add_up() -> None:
    clock = SteadyClock(jump_s=60.0)
    assert [clock.advance(now_s) for now_s in (100.0, 101.0, 101.0, 3000.0)] == [0.0, 1.0, 0.0, 1899.0 + 1000.0]
    assert (clock.elapsed_s, clock.jumps) == (2900.0, 0)


def test_a_little_out_of_order_is_no_jump_and_counts_no_time_twice() -> None:
    clock = SteadyClock(jump_s=60.0, start_s=0.0)
    for now_s in (10.0, 9.5, 10.5, 10.2, 11.0):
        clock.advance(now_s)
    assert (clock.elapsed_s, clock.jumps) == (11.0, 0)


def test_a_jump_ahead_counts_for_what_it_was_told_to_and_one_back_for_nothing() -> None:
    clock = SteadyClock(jump_s=60.0, start_s=0.0)
    assert [clock.advance(now_s) for now_s in (1e9, 1e9 + 1.0, 5.0, 6.0)] == [60.0, 1.0, 0.0, 1.0]
    assert clock.jumps == 2


def test_instants_that_are_no_numbers_are_jumps_that_change_nothing() -> None:
    clock = SteadyClock(jump_s=60.0, start_s=0.0)
    for now_s in (math.nan, math.inf, -math.inf, 2.0):
        clock.advance(now_s)
    assert (clock.elapsed_s, clock.jumps) == (2.0, 3)


def test_the_rate_is_that_of_the_arrivals_soon_after_the_start_and_later() -> None:
    rate, rng, now_s = ArrivalRate(60.0, 1.0), random.Random(0), 0.0
    seen = {}
    while now_s < 600.0:
        now_s += rng.expovariate(5.0)
        rate.add(1, now_s)
        seen[int(now_s)] = rate.recent_per_s(now_s)
    assert seen[20] == pytest.approx(5.0, rel=0.3)
    assert seen[590] == pytest.approx(5.0, rel=0.15)
    assert rate.usual_per_s(now_s) == pytest.approx(5.0, rel=0.05)


def test_the_recent_rate_forgets_and_the_usual_one_does_not() -> None:
    rate = ArrivalRate(60.0, 1.0)
    rate.add(600, 600.0)
    assert rate.recent_per_s(600.0) == pytest.approx(10.0, rel=0.01)
    assert rate.recent_per_s(1200.0) < 0.001
    assert rate.usual_per_s(1200.0) == 0.5
