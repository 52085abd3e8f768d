"""Heat: a robust slope, a time to the limit, a clock that gave way; absurd readings are unknown, never an error."""

import math
import random
from typing import List, Optional

import pytest

from wenet_runtime.conditions import Conditions
from wenet_runtime.thermal import FIRST_READINGS, LAST_READINGS, ThermalTrend, hot, throttled

ABSURD = [None, math.nan, math.inf, -math.inf, -256.0, 1e9]


def trend(degrees: List[Optional[float]], limit_c: Optional[float] = None, step_s: float = 1.0) -> ThermalTrend:
    found = ThermalTrend(limit_c)
    for number, one in enumerate(degrees):
        found.observe(one, 100.0 + number * step_s)
    return found


def readings(clocks: List[Optional[float]], degrees: Optional[float]) -> List[Conditions]:
    warm = {} if degrees is None else {"CPU-therm": degrees}
    return [Conditions({} if one is None else {"cpu0": one, "gpu": 1.0}, warm) for one in clocks]


def test_a_straight_rise_gives_its_slope_and_its_end() -> None:
    found = trend([50 + 0.25 * number for number in range(60)], limit_c=80.0)
    assert found.slope_c_per_s == pytest.approx(0.25)
    assert found.temperature_c == pytest.approx(64.5)  # the median of the last three
    assert found.seconds_to_limit == pytest.approx((80 - 64.5) / 0.25)
    assert found.state == "warming"


def test_the_slope_is_the_median_over_all_pairs() -> None:
    chance = random.Random(3)
    for _ in range(20):
        samples = [(number + chance.random() / 20, chance.uniform(30, 90)) for number in range(40)]
        found = ThermalTrend()
        for now_s, degrees in samples:
            found.observe(degrees, now_s)
        slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a in samples for b in samples if b[0] > a[0])
        assert found.slope_c_per_s == pytest.approx((slopes[389] + slopes[390]) / 2)


def test_a_quarter_of_wild_readings_does_not_move_the_slope() -> None:
    chance = random.Random(4)
    degrees: List[Optional[float]] = [50 + 0.1 * number + chance.gauss(0, 0.05) for number in range(60)]
    for number in range(0, 60, 4):
        degrees[number] = chance.choice([-40.0, 150.0])
    slope = trend(degrees).slope_c_per_s
    assert slope == pytest.approx(0.1, abs=0.05)


def test_only_the_last_minute_counts() -> None:
    found = trend([90.0 - number for number in range(40)] + [50.0] * 61)
    assert found.slope_c_per_s == 0
    assert found.state == "steady"


def test_a_zone_that_does_not_rise_never_reaches_its_limit_and_one_above_has() -> None:
    assert trend([70 - 0.2 * number for number in range(30)], 80.0).seconds_to_limit == math.inf
    assert trend([70 - 0.2 * number for number in range(30)], 80.0).state == "cooling"
    assert trend([85.0] * 3, 80.0).seconds_to_limit == 0
    assert trend([85.0] * 30, 80.0).state == "at-limit"


def test_one_wild_reading_at_the_end_is_no_limit_reached() -> None:
    assert trend([50.0] * 30 + [130.0], 80.0).seconds_to_limit == math.inf


@pytest.mark.parametrize("absurd", ABSURD)
def test_absurd_readings_are_unknown(absurd: Optional[float]) -> None:
    found = trend([absurd] * 30, limit_c=80.0)
    assert (found.temperature_c, found.slope_c_per_s, found.seconds_to_limit) == (None, None, None)
    assert found.state == "unknown"
    assert ThermalTrend(absurd).limit_c is None
    assert throttled(readings([1000.0] * 5 + [500.0] * 10, absurd)) is None
    assert hot(absurd) is None


def test_absurd_readings_between_good_ones_are_left_out() -> None:
    degrees: List[Optional[float]] = [50 + 0.25 * number for number in range(60)]
    for number, absurd in enumerate(ABSURD):
        degrees[5 * number] = absurd
    assert trend(degrees).slope_c_per_s == pytest.approx(0.25)


def test_too_little_says_nothing() -> None:
    assert trend([50.0, 51.0, 52.0, 53.0], 80.0).state == "unknown"
    assert trend([50.0 + number for number in range(20)], 80.0, step_s=0.4).slope_c_per_s is None  # in 8 s
    assert trend([50.0] * 30).seconds_to_limit is None  # no limit is known
    assert ThermalTrend(80.0).state == "unknown"


def test_a_clock_that_jumps_or_stands_does_no_harm() -> None:
    found = trend([50 + 0.25 * number for number in range(30)])
    found.observe(60.0, math.nan)
    found.observe(60.0, math.inf)
    assert found.slope_c_per_s == pytest.approx(0.25)
    found.observe(60.0, 3.0)  # it ran back: what was before says nothing
    assert found.slope_c_per_s is None
    for _ in range(1000):
        found.observe(60.0, 3.0)
    assert (found.temperature_c, found.slope_c_per_s) == (60.0, None)
    found.observe(62.0, 1e12)
    assert (found.temperature_c, found.slope_c_per_s) == (62.0, None)


def test_reading_a_thousand_times_a_second_still_spans_the_minute_and_stays_small() -> None:
    found = ThermalTrend()
    for number in range(60_000):
        found.observe(40 + number / 6000, number / 1000)
    assert found.slope_c_per_s == pytest.approx(1 / 6, rel=0.05)
    assert len(found._samples) <= 60


def test_throttled_is_a_clock_that_fell_for_long_while_hot() -> None:
    full, held = [1479.0] * FIRST_READINGS, [1224.0] * LAST_READINGS
    assert throttled(readings(full + held, 95.0), 97.0) is True
    assert throttled(readings(full + held, 95.0)) is True  # the limit is not known
    assert throttled(readings(full + held, 60.0), 97.0) is False  # idle
    assert throttled(readings(full + held, 60.0)) is False
    assert throttled(readings(full + full * 2, 95.0), 97.0) is False
    assert throttled(readings([*full, *held[1:], 1479.0], 95.0), 97.0) is False  # a governor's dips
    assert throttled(readings([*full, *[1440.0] * 10], 95.0), 97.0) is False  # noise
    assert throttled(readings([*full, 300.0, *full, *held], 95.0), 97.0) is True  # only the last ones count


def test_another_device_s_clocks_are_its_own() -> None:
    history = readings([1479.0] * 5 + [700.0] * 10, 95.0)
    assert throttled(history, device="gpu") is False
    assert throttled(history, device="tpu") is None


def test_unknown_clocks_and_short_histories_are_unknown() -> None:
    assert throttled([]) is None
    assert throttled(readings([1479.0] * 5 + [700.0] * 9, 95.0)) is None
    assert throttled(readings([None] * 15, 95.0)) is None
    assert throttled(readings([None] * 5 + [700.0] * 10, 95.0)) is None
    assert throttled(readings([math.nan] * 5 + [math.inf] * 10, 95.0)) is None
    assert throttled(readings([1479.0] * 5 + [700.0] * 10, None)) is None
