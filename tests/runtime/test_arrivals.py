"""What was seen of the traffic, and what it says of who sends it."""

import math

import pytest

from wenet_runtime.arrivals import EVERY, LEAST, MEMORY, WATCHED, Arrivals
from wenet_runtime.forecast import Forecast


def forecast(factor: float = 1.0) -> Forecast:
    medians = [100.0 * factor, 10.0 * factor]
    return Forecast(["m1", "m0"], [0.9, 0.8], medians, [1.1 * ms for ms in medians], medians, [None] * 2, [None] * 2)


def seen(count: int, present: int = 1) -> Arrivals:
    one = Arrivals(0.99)
    for at in range(count):
        one.came(50.0, present, at * 0.1)
    return one


def test_it_plans_once_enough_came_and_then_every_so_many() -> None:
    one = seen(LEAST)
    assert one.traffic(forecast()) is None
    one.came(50.0, 1, LEAST * 0.1)
    planned = one.traffic(forecast())
    assert planned is not None
    assert planned.gaps_ms == pytest.approx([100.0] * LEAST)
    assert set(planned.budgets_ms) == {50.0}
    assert (planned.medians_ms, planned.accuracies) == ([100.0, 10.0], [0.9, 0.8])
    assert one.traffic(forecast()) is None
    for at in range(EVERY):
        one.came(50.0, 1, 100 + at * 0.1)
    assert one.traffic(forecast()) is not None


def test_modes_that_take_another_time_are_planned_anew_at_once() -> None:
    one = seen(LEAST + 1)
    assert one.traffic(forecast()) is not None
    assert one.traffic(forecast(1.05)) is None
    assert one.traffic(forecast(1.5)) is not None


def test_without_any_deadline_there_is_nothing_to_plan() -> None:
    one = Arrivals(0.99)
    for at in range(500):
        one.came(math.inf, 1, at * 0.1)
    assert one.traffic(forecast()) is None


def test_misses_make_an_answer_worth_more_and_answers_less_in_the_ratio_asked_for() -> None:
    one = Arrivals(0.99)
    for _ in range(5):
        one.ended(in_time=False)
    dear = one.answer
    assert dear > 3.0
    for _ in range(99):
        one.ended(in_time=True)
    one.ended(in_time=False)
    assert one.answer == pytest.approx(dear)
    for _ in range(10_000):
        one.ended(in_time=False)
    assert one.answer == pytest.approx(100.0)
    for _ in range(100_000):
        one.ended(in_time=True)
    assert one.answer == 1.0


def test_a_few_clients_that_wait_for_their_answers_are_told_from_many_that_do_not() -> None:
    one = Arrivals(0.99)
    assert seen(100, present=1).returning  # one after another
    assert seen(100, present=4).returning  # four at a time, always four
    for at in range(200):
        one.came(50.0, 1 + (at % 7 == 0) + (at % 31 == 0), at * 0.1)
    assert not one.returning
    for at in range(WATCHED):
        one.came(50.0, 2, 100 + at * 0.1)
    assert one.returning


def test_who_comes_upon_a_full_queue_is_no_sign_of_clients_that_wait() -> None:
    one = Arrivals(0.99)
    for at in range(500):
        one.came(50.0, at % 7, at * 0.1)
    assert not one.returning
    for at in range(500, 1000):
        one.came(50.0, None, at * 0.1)
    assert not one.returning
    assert not Arrivals(0.99).returning


def test_what_is_kept_is_bounded_and_a_clock_that_jumps_harmless() -> None:
    one = Arrivals(0.99)
    for at in range(3 * MEMORY):
        one.came(50.0, 1 + at % 5, -0.1 * at)
    assert one.traffic(forecast()) is None  # no gap was possible
    one.came(50.0, 1, 1e12)
    assert len(one._gaps) == 1
    assert len(one._present) == WATCHED
    assert sum(one._counts.values()) == WATCHED
    assert one.age_ms(-1e12) == 0.0
