"""The live filter believes a real slowdown soon, an improvement late, and an outlier never."""

import math
import random
from typing import Callable, List

import pytest

from wenet_runtime.slowdown import (
    CEILING,
    COMPUTE,
    FLOOR,
    HALF_LIFE_S,
    LEAST_NOISE,
    MEMORY,
    RUN,
    ClassFilter,
    Slowdown,
    classes_of,
)


def feed(one: ClassFilter, ratios: List[float], profiled_ms: float = 1.0) -> List[float]:
    """Observe a mode at these ratios; returns the factor after each."""
    factors = []
    for ratio in ratios:
        one.observe(ratio, profiled_ms)
        factors.append(one.factor)
    return factors


def noisy(level: float, count: int, seed: int = 0, spread: float = 0.03) -> List[float]:
    draw = random.Random(seed)
    return [level * math.exp(draw.gauss(0.0, spread)) for _ in range(count)]


def first(factors: List[float], holds: Callable[[float], bool]) -> int:
    """After how many observations it first holds."""
    return next(at for at, factor in enumerate(factors, 1) if holds(factor))


def test_nothing_seen_is_the_profile_s_own_speed() -> None:
    one = ClassFilter(0.99)
    assert (one.factor, one.middle, one.spread, one.excess_ms) == (1.0, 1.0, None, 0.0)


def test_a_single_outlier_does_not_move_the_factor() -> None:
    assert set(feed(ClassFilter(0.99), [1.0] * 20 + [30.0] + [1.0] * 20)) == {1.0}


def test_the_very_first_outlier_does_not_move_it_either() -> None:
    assert set(feed(ClassFilter(0.99), [30.0] + [1.0] * 8)) == {1.0}


def test_requests_that_a_third_of_the_time_are_stalled_do_not_move_it() -> None:
    assert set(feed(ClassFilter(0.99), [1.0, 1.0, 25.0] * 20)) == {1.0}


@pytest.mark.parametrize("level", [1.3, 1.5, 2.0, 5.0])
def test_a_real_slowdown_is_believed_within_five_requests(level: float) -> None:
    one = ClassFilter(0.99)
    feed(one, noisy(1.0, 100))
    assert first(feed(one, noisy(level, 20, seed=1)), lambda factor: factor > 0.9 * level) <= 5


def test_two_requests_show_it_once_the_noise_is_known_well() -> None:
    one = ClassFilter(0.99)
    feed(one, noisy(1.0, 200))
    assert first(feed(one, noisy(2.0, 20, seed=1)), lambda factor: factor > 1.8) == 2


def test_recovery_takes_longer_than_worsening() -> None:
    one = ClassFilter(0.99)
    feed(one, noisy(1.0, 200))
    worse = first(feed(one, noisy(1.5, 50, seed=1)), lambda factor: factor > 1.4)
    better = first(feed(one, noisy(1.0, 50, seed=2)), lambda factor: factor < 1.1)
    assert worse < better <= RUN


def test_before_the_noise_is_known_most_of_five_requests_have_to_show_it() -> None:
    assert feed(ClassFilter(0.99), [3.0] * 5) == [1.0] * 4 + [3.0]
    assert feed(ClassFilter(0.99), [3.0, 1.0, 3.0, 1.0, 3.0])[-1] == 1.0


def test_wider_noise_asks_for_more() -> None:
    quiet, loud = ClassFilter(0.99), ClassFilter(0.99)
    feed(quiet, noisy(1.0, 200, spread=0.02))
    feed(loud, noisy(1.0, 200, spread=0.3))
    before = loud.factor
    assert feed(quiet, [1.3] * 5)[-1] == pytest.approx(1.3)
    assert feed(loud, [1.3 * before] * 5)[-1] == before


def test_a_slow_drift_is_followed() -> None:
    one = ClassFilter(0.99)
    feed(one, noisy(1.0, 200))
    draw = random.Random(3)
    for at in range(400):
        one.observe((1 + at / 400) * math.exp(draw.gauss(0.0, 0.03)), 1.0)
    assert one.factor * one.middle == pytest.approx(2.0, rel=0.1)


def test_nothing_beyond_what_a_device_can_be_is_believed() -> None:
    assert feed(ClassFilter(0.99), [1e-9] * 20)[-1] == FLOOR
    assert feed(ClassFilter(0.99), [1e9] * 20)[-1] == CEILING


def test_steady_noise_moves_the_factor_rarely() -> None:
    one = ClassFilter(0.99)
    factors = feed(one, noisy(1.0, 5000, spread=0.1))
    moves = sum(before != after for before, after in zip(factors, factors[1:]))
    assert moves <= 25
    assert min(factors[100:]) > 0.8
    assert max(factors[100:]) < 1.3


@pytest.mark.parametrize("attainment", [0.9, 0.99])
@pytest.mark.parametrize("kind", ["jitter", "stalls"])
def test_the_bound_covers_the_share_asked_for(attainment: float, kind: str) -> None:
    draw = random.Random(5)
    one = ClassFilter(attainment)
    covered = seen = 0
    for at in range(6000):
        ratio = math.exp(draw.gauss(0.0, 0.05)) + (draw.random() * 4 if kind == "stalls" and draw.random() < 0.2 else 0)
        if at > 500:
            assert one.spread is not None
            seen += 1
            covered += ratio <= one.factor * one.spread + one.excess_ms
        one.observe(ratio, 1.0)
    assert covered / seen == pytest.approx(attainment, abs=0.35 * (1 - attainment))


def test_a_stall_counts_as_long_for_a_quick_mode_as_for_a_slow_one() -> None:
    one = ClassFilter(0.99)
    for at in range(60):
        one.observe(1.4 if at == 40 else 1.0, 10.0)
    assert one.spread == 1.0
    assert one.excess_ms == pytest.approx(4.0)


def test_jitter_counts_as_a_share() -> None:
    one = ClassFilter(0.9)
    feed(one, [0.9, 1.0, 1.1] * 50, profiled_ms=10.0)
    assert one.spread == pytest.approx(1.1)
    assert one.excess_ms == pytest.approx(0.0, abs=1e-9)


def test_what_showed_a_change_is_not_kept_as_noise() -> None:
    one = ClassFilter(0.99)
    feed(one, [1.0, 1.01] * 100)
    feed(one, [2.0, 2.02] * 10)
    assert one.factor == pytest.approx(2.0, rel=0.02)
    assert one.excess_ms == pytest.approx(0.0, abs=0.05)


def slowdown(seconds: float = 3.0) -> Slowdown:
    """Both classes seen as they should be, once every 10 ms."""
    one = Slowdown(0.99)
    for at in range(round(seconds * 100)):
        one.observe(at % 2, 1.0 + 0.01 * (at % 3), 1.0, at * 0.01)
    return one


def factors(one: Slowdown) -> List[float]:
    return [each.factor for each in one.classes]


def test_what_slows_one_class_is_expected_of_the_other_until_that_one_is_seen() -> None:
    one = slowdown()
    for at in range(5):
        one.observe(COMPUTE, 1.5, 1.0, 3.0 + at * 0.01)
    assert factors(one) == pytest.approx([1.5, 1.5])
    for at in range(30):
        one.observe(MEMORY, 1.0, 1.0, 4.0 + at * 0.01)
    assert factors(one)[MEMORY] == pytest.approx(1.0, rel=0.02)
    assert one.factor == max(factors(one))


def test_what_frees_one_class_frees_the_other_but_not_below_its_profile() -> None:
    one = slowdown()
    for at in range(5):
        one.observe(MEMORY, 1.8, 1.0, 3.0 + at * 0.01)
    for at in range(5):
        one.observe(COMPUTE, 2.2, 1.0, 3.5 + at * 0.01)  # seen itself, and more
    for at in range(30):
        one.observe(MEMORY, 1.0, 1.0, 4.0 + at * 0.01)
    assert factors(one)[MEMORY] == pytest.approx(1.0, rel=0.02)
    assert 0.99 <= factors(one)[COMPUTE] < 2.0


def test_what_was_only_carried_over_frees_nobody_when_it_turns_out_wrong() -> None:
    one = slowdown()
    for at in range(5):
        one.observe(COMPUTE, 1.5, 1.0, 3.0 + at * 0.01)
    for at in range(30):
        one.observe(MEMORY, 1.0, 1.0, 4.0 + at * 0.01)
    assert factors(one) == pytest.approx([1.5, 1.0], rel=0.02)


def test_a_class_that_is_not_run_drifts_to_the_one_that_is_and_its_noise_is_forgotten() -> None:
    one, draw = Slowdown(0.99), random.Random(1)
    for at in range(300):
        one.observe(COMPUTE, 2.0 + (draw.random() * 9 if draw.random() < 0.2 else 0.0), 1.0, at * 0.01)
        one.observe(MEMORY, 1.0 + 0.01 * (at % 3), 1.0, at * 0.01)
    assert factors(one)[COMPUTE] > 1.8
    assert one.classes[COMPUTE].excess_ms > 1.0
    for at in range(round(HALF_LIFE_S * 60)):
        one.observe(MEMORY, 1.0 + 0.01 * (at % 3), 1.0, 3.0 + at * 0.1)
    assert factors(one)[COMPUTE] == pytest.approx(1.0, abs=0.05)
    assert (one.classes[COMPUTE].spread, one.classes[COMPUTE].excess_ms) == (None, 0.0)
    assert one.classes[MEMORY].spread is not None


def test_an_idle_device_drifts_back_to_its_profile() -> None:
    one = slowdown()
    one.clock_changed(1 / 3)
    assert one.factor == pytest.approx(3.0)
    assert not one.forget(3.0)
    assert one.forget(2.99 + HALF_LIFE_S)
    assert one.factor == pytest.approx(2.0)
    assert one.forget(2.99 + 20 * HALF_LIFE_S)
    assert one.factor == pytest.approx(1.0, abs=1e-3)


def test_forgetting_nothing_is_harmless() -> None:
    one = Slowdown(0.99)
    assert not one.forget(1e9)
    assert one.factor == 1.0


def test_a_clock_that_jumps_does_no_harm() -> None:
    one = slowdown()
    for now_s in (-1e9, 1e12, 3.0):
        one.observe(COMPUTE, 1.0, 1.0, now_s)
        one.forget(now_s)
    assert one.factor == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("measured_ms", [math.nan, math.inf, 0.0, -1.0])
def test_a_time_that_is_none_is_not_learned(measured_ms: float) -> None:
    one = Slowdown(0.99)
    for at in range(20):
        one.observe(COMPUTE, measured_ms, 1.0, at * 0.01)
    assert one.classes[COMPUTE].spread is None
    assert one.factor == 1.0


@pytest.mark.parametrize("by", [math.nan, math.inf, 0.0, -2.0])
def test_a_clock_s_change_that_is_none_is_ignored(by: float) -> None:
    one = slowdown()
    one.clock_changed(by)
    assert one.factor == 1.0


def test_another_power_setting_starts_anew_and_keeps_the_noise() -> None:
    one = slowdown()
    one.clock_changed(0.5)
    one.restart()
    assert factors(one) == [1.0, 1.0]
    assert one.classes[COMPUTE].spread is not None


def test_modes_that_do_less_than_half_as_much_per_millisecond_wait_for_memory() -> None:
    rates = {"full": 20.1, "half": 16.0, "quarter": 8.7, "eighth": 7.2, "unknown": 0.0}
    assert classes_of(rates) == {"full": 0, "half": 0, "quarter": 1, "eighth": 1, "unknown": 0}
    assert classes_of({}) == {}


def test_the_noise_is_learned_from_enough() -> None:
    one = ClassFilter(0.99)
    feed(one, [1.0] * (LEAST_NOISE - 1))
    assert one.spread is None
    one.observe(1.0, 1.0)
    assert one.spread == 1.0


def test_stalls_that_ended_are_forgotten_soon_and_those_that_go_on_are_not() -> None:
    one, draw = ClassFilter(0.99), random.Random(7)
    for _ in range(400):
        one.observe(1.0 + (draw.random() * 5 if draw.random() < 0.25 else 0.0), 10.0)
    assert one.excess_ms > 20.0
    feed(one, noisy(1.0, 64, seed=1), profiled_ms=10.0)
    assert one.excess_ms < 10.0
    held = []
    for _ in range(2000):
        one.observe(1.0 + (draw.random() * 5 if draw.random() < 0.03 else 0.0), 10.0)
        held.append(one.excess_ms)
    assert sum(excess_ms > 10.0 for excess_ms in held[500:]) > 0.95 * 1500


def test_stalls_that_one_class_sees_end_are_forgotten_for_the_other_too() -> None:
    one, draw = Slowdown(0.99), random.Random(2)
    for at in range(400):
        ratio = 1.0 + (draw.random() * 9 if draw.random() < 0.25 else 0.0)
        one.observe(at % 2, ratio, 1.0, at * 0.01)
    assert min(each.excess_ms for each in one.classes) > 3.0
    for at in range(64):
        one.observe(MEMORY, 1.0 + 0.01 * (at % 3), 1.0, 4.0 + at * 0.01)
    assert (one.classes[COMPUTE].spread, one.classes[COMPUTE].excess_ms) == (None, 0.0)


def test_stalls_of_a_class_that_is_still_seen_are_its_own() -> None:
    one, draw = Slowdown(0.99), random.Random(2)
    for at in range(800):
        stalled = draw.random() * 9 if draw.random() < 0.25 and (at % 2 == COMPUTE or at < 400) else 0.0
        one.observe(at % 2, 1.0 + stalled, 1.0, at * 0.01)
    assert one.classes[MEMORY].excess_ms < 3.0 < one.classes[COMPUTE].excess_ms
