"""What a millisecond is worth follows from who had to give up accuracy for it."""

import pytest

from wenet_runtime.shadow_price import PENDING, STEPS, WINDOW, ShadowPrice


def test_nothing_seen_costs_nothing() -> None:
    assert [ShadowPrice().at(waiting) for waiting in (1, 5, 500)] == [0.0, 0.0, 0.0]


def test_a_run_that_delays_nobody_costs_nothing() -> None:
    one = ShadowPrice()
    for _ in range(100):
        one.decided(1)
        one.idle()
    assert one.at(1) == 0.0


def test_whoever_has_to_hurry_makes_those_before_it_dear() -> None:
    one = ShadowPrice()
    one.decided(3)
    one.decided(2)  # it was delayed, and passed the delay on
    one.paid(0.1)
    assert (one.at(3), one.at(2), one.at(1)) == (0.1, 0.1, 0.0)


def test_who_paid_does_not_pass_the_delay_on() -> None:
    one = ShadowPrice()
    one.decided(2)
    one.paid(0.1)
    one.decided(1)
    one.idle()
    assert (one.at(2), one.at(1)) == (0.1, 0.0)


def test_the_price_is_the_mean_of_what_was_paid() -> None:
    one = ShadowPrice()
    for at in range(400):
        one.decided(1)
        if at % 4 == 0:
            one.paid(0.1)
        else:
            one.idle()
    assert one.at(1) == pytest.approx(0.025, rel=0.1)


def test_it_follows_a_change_within_a_few_windows() -> None:
    one = ShadowPrice()
    for slope in [0.1] * 500 + [0.0] * (5 * WINDOW):
        one.decided(1)
        one.paid(slope)
    assert one.at(1) < 0.001


def test_depths_not_seen_yet_cost_what_the_next_smaller_does() -> None:
    one = ShadowPrice()
    one.decided(2)
    one.paid(0.1)
    assert one.at(STEPS[-1] + 100) == 0.1
    one.decided(64)
    one.paid(0.5)
    assert (one.at(64), one.at(1000), one.at(63)) == (0.5, 0.5, 0.1)


def test_a_chain_without_end_is_cut() -> None:
    one = ShadowPrice()
    for _ in range(10 * PENDING):
        one.decided(1)
    assert len(one._pending) <= PENDING
    one.paid(0.1)
    assert 0.0 < one.at(1) <= 0.1
