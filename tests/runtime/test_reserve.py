"""What a long run may take so that later arrivals still find the fastest mode in time."""

import math
import random

import pytest

from wenet_runtime.reserve import LEAST, Reserve


def test_until_enough_arrived_nothing_is_reserved() -> None:
    one = Reserve(0.99)
    for at in range(LEAST - 1):
        one.arrived(100.0, 10.0, at * 1.0)
    assert one.slack_ms == math.inf
    one.arrived(100.0, 10.0, 99.0)
    assert one.slack_ms == 90.0


def test_arrivals_far_apart_need_only_their_own_time() -> None:
    one = Reserve(0.99)
    for at in range(50):
        one.arrived(100.0, 10.0, at * 1.0)
    assert one.slack_ms == 90.0


def test_bursts_need_the_time_of_those_before_them() -> None:
    one = Reserve(0.99)
    for burst in range(50):
        for _ in range(4):
            one.arrived(100.0, 10.0, burst * 1.0)
    assert one.slack_ms == 60.0  # the fourth waits for three


def test_it_is_the_slack_of_a_queue_served_by_the_fastest_mode() -> None:
    draw = random.Random(1)
    one, now_s, free_s, slacks = Reserve(0.9), 0.0, 0.0, []
    for _ in range(1000):
        now_s += draw.expovariate(50.0)
        one.arrived(200.0, 10.0, now_s)
        free_s = max(free_s, now_s) + 0.010
        slacks.append(200.0 - (free_s - now_s) * 1e3)
    slacks.sort()
    assert one.slack_ms == pytest.approx(slacks[99], abs=1e-6)


def test_what_not_even_the_fastest_mode_could_serve_takes_no_time() -> None:
    one = Reserve(0.5)
    for _ in range(100):
        one.arrived(25.0, 10.0, 0.0)
    one.arrived(25.0, 10.0, 0.010)
    assert one._work_ms == pytest.approx(20.0)  # two of the hundred, less 10 ms, and the last one


def test_requests_without_a_deadline_need_no_slack_but_take_time() -> None:
    one = Reserve(0.99)
    for at in range(50):
        one.arrived(math.inf, 10.0, at * 1.0)
        one.arrived(100.0, 10.0, at * 1.0)
    assert one.slack_ms == 80.0


def test_a_clock_that_goes_backwards_does_no_harm() -> None:
    one = Reserve(0.99)
    for at in range(50):
        one.arrived(100.0, 10.0, -1.0 * at)
    one.arrived(100.0, 10.0, 1e9)
    assert 0.0 <= one.slack_ms <= 90.0


def steady(attainment: float = 0.99) -> Reserve:
    """Bursts of up to ten, so that slack differs from one arrival to the next."""
    one = Reserve(attainment)
    for burst in range(100):
        for _ in range(1 + burst % 10):
            one.arrived(200.0, 10.0, burst * 1.0)
    return one


def again(one: Reserve) -> float:
    one.arrived(200.0, 10.0, 1000.0)
    return one.slack_ms


def test_misses_make_it_cautious_and_a_few_in_a_row_end_all_risk() -> None:
    one = steady()
    before = again(one)
    for _ in range(60):
        one.answered(in_time=True)
    relaxed = again(one)
    assert relaxed >= before
    one.answered(in_time=False)
    assert again(one) <= relaxed
    for _ in range(3):
        one.answered(in_time=False)
    assert again(one) == 0.0


def test_answers_in_time_make_it_bold_within_bounds() -> None:
    one = steady()
    for _ in range(10_000):
        one.answered(in_time=True)
    bold = again(one)
    assert bold < 190.0  # not even then the slack of the luckiest
    for _ in range(100):
        one.answered(in_time=False)
    for _ in range(10_000):
        one.answered(in_time=True)
    assert again(one) == pytest.approx(bold, abs=10.0)
