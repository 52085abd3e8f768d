"""What is charged for a run: the reading where it is credible, otherwise the corrected estimate."""

import math
import random

import pytest

from wenet_runtime.meter_trust import HALVED, MeterTrust


def test_a_credible_reading_is_charged_less_idle() -> None:
    assert MeterTrust(2.0).charge_mj(700.0, 400.0, 100.0) == 500.0


def test_each_mode_learns_how_far_its_profile_is_off() -> None:
    trust, rng = MeterTrust(0.0), random.Random(0)
    trust.keep(["a", "b"])
    for _ in range(200):
        trust.charge_mj(400.0 * 1.25 * rng.gauss(1, 0.05), 400.0, rng.random(), "a")
        trust.charge_mj(100.0 * 0.8 * rng.gauss(1, 0.05), 100.0, rng.random(), "b")
    assert trust.factor_of("a") == pytest.approx(1.25, rel=0.04)
    assert trust.factor_of("b") == pytest.approx(0.8, rel=0.04)
    assert trust.charge_mj(None, 400.0, 100.0, "a") == pytest.approx(500.0, rel=0.04)
    assert trust.distrusted == 0


def test_a_mode_that_has_not_run_takes_the_factor_of_all() -> None:
    trust = MeterTrust(0.0)
    trust.keep(["a", "b"])
    for number in range(100):
        trust.charge_mj(600.0, 400.0, 100.0, "a")
        assert trust.factor_of("b") == trust.factor, number
    trust.keep(["b"])
    assert trust.factor_of("a") == trust.factor == pytest.approx(1.5, rel=0.05)


def test_what_a_mode_taught_fades_while_only_others_run() -> None:
    trust = MeterTrust(0.0)
    trust.keep(["a", "b"])
    for _ in range(100):
        trust.charge_mj(760.0, 400.0, 100.0, "a")
    assert trust.factor_of("a") == pytest.approx(1.9, rel=0.02)
    for number in range(HALVED):
        trust.charge_mj(100.0 + 0.01 * (number % 7), 100.0, 100.0, "b")
    assert trust.factor_of("a") == pytest.approx(1.45, rel=0.02)
    assert trust.charge_mj(None, 400.0, 100.0, "a") == pytest.approx(580.0, rel=0.02)
    for number in range(10 * HALVED):
        trust.charge_mj(100.0 + 0.01 * (number % 7), 100.0, 100.0, "b")
    assert trust.factor_of("a") == pytest.approx(1.0, rel=0.01)
    for _ in range(100):  # and it is learned again
        trust.charge_mj(760.0, 400.0, 100.0, "a")
    assert trust.factor_of("a") == pytest.approx(1.9, rel=0.02)


@pytest.mark.parametrize("reading", [99.0, 1601.0, -400.0, math.nan, math.inf, -math.inf])
def test_a_reading_beyond_four_times_the_estimate_is_not_believed(reading: float) -> None:
    trust = MeterTrust(0.0)
    assert trust.charge_mj(reading, 400.0, 100.0) == 400.0
    assert (trust.distrusted, trust.factor) == (1, 1.0)


def test_the_same_reading_of_like_runs_is_believed_and_of_unlike_runs_it_is_not() -> None:
    alike, unlike = MeterTrust(0.0), MeterTrust(0.0)
    for number in range(100):
        alike.charge_mj(500.0, 400.0, 100.0)
        unlike.charge_mj(500.0, 400.0, 100.0 + number)
    assert alike.distrusted == 0
    assert unlike.distrusted == 95
    unlike.charge_mj(501.0, 400.0, 100.0)
    assert unlike.distrusted == 95


@pytest.mark.parametrize("busy_ms", [math.nan, -5.0, math.inf])
def test_a_run_of_impossible_length_is_charged_its_estimate(busy_ms: float) -> None:
    assert MeterTrust(2.0).charge_mj(600.0, 400.0, busy_ms) == 400.0


@pytest.mark.parametrize("estimate", [None, 0.0, -1.0, math.nan, math.inf])
def test_without_an_estimate_a_usual_run_is_charged_and_counted(estimate: float) -> None:
    trust = MeterTrust(0.0)
    for _ in range(400):
        trust.charge_mj(None, 400.0, 100.0)
    assert trust.charge_mj(1e9, estimate, 100.0) == pytest.approx(400.0, rel=0.01)
    assert (trust.unpriced, trust.distrusted) == (1, 1)
