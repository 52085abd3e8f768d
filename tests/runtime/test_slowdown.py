"""The live filter believes a real slowdown soon, an improvement late, and an outlier never."""

import sys
import threading
from typing import List

import pytest

from wenet_runtime.slowdown import FAST_WINDOW, FLOOR, FORGET_S, SLOW_WINDOW, Slowdown, quantile


def feed(slowdown: Slowdown, ratios: List[float], start_s: float = 0.0) -> List[float]:
    """Observe a mode of 1 ms every 10 ms, at these ratios; returns the factor after each."""
    factors = []
    for at, ratio in enumerate(ratios):
        slowdown.observe(ratio, 1.0, start_s + at * 0.01)
        factors.append(slowdown.factor)
    return factors


def test_nothing_seen_is_the_profile_s_own_speed() -> None:
    assert Slowdown(0.99).factor == 1.0
    assert Slowdown(0.99).excess_ms is None


def test_a_single_outlier_does_not_move_the_factor() -> None:
    assert set(feed(Slowdown(0.99), [1.0] * 20 + [30.0] + [1.0] * 20)) == {1.0}


def test_the_very_first_outlier_does_not_move_it_either() -> None:
    assert set(feed(Slowdown(0.99), [30.0] + [1.0] * 8)) == {1.0}


def test_a_third_of_requests_stalled_does_not_move_it() -> None:
    assert set(feed(Slowdown(0.99), [1.0, 1.0, 25.0] * 20)) == {1.0}


def test_a_real_slowdown_is_believed_by_the_fourth_request() -> None:
    assert feed(Slowdown(0.99), [1.0] * 20 + [3.0] * 4)[-4:] == [1.0, 1.0, 1.0, 3.0]


def test_recovery_takes_longer_than_worsening() -> None:
    factors = feed(Slowdown(0.99), [1.0] * 20 + [3.0] * 20 + [1.0] * 20)
    worsened = next(at for at, factor in enumerate(factors) if factor == 3.0) - 20
    recovered = next(at for at, factor in enumerate(factors) if at >= 40 and factor == 1.0) - 40
    assert worsened < FAST_WINDOW < recovered < SLOW_WINDOW


def test_a_faster_device_is_believed_down_to_a_floor() -> None:
    assert feed(Slowdown(0.99), [0.8] * 20)[-1] == 0.8
    assert feed(Slowdown(0.99), [0.01] * 20)[-1] == FLOOR


def test_an_idle_device_drifts_back_to_its_profile() -> None:
    slowdown = Slowdown(0.99)
    feed(slowdown, [3.0] * 20)
    slowdown.forget(0.2 + FORGET_S / 2)
    assert slowdown.factor == 3.0
    slowdown.forget(0.2 + FORGET_S)
    assert (slowdown.factor, slowdown.excess_ms) == (1.0, None)


def test_forgetting_nothing_is_harmless() -> None:
    slowdown = Slowdown(0.99)
    slowdown.forget(1e9)
    assert slowdown.factor == 1.0


def test_the_excess_waits_for_enough_to_go_by() -> None:
    slowdown = Slowdown(0.99)
    feed(slowdown, [1.0] * (SLOW_WINDOW - 1))
    assert slowdown.excess_ms is None
    slowdown.observe(1.0, 1.0, 1.0)
    assert slowdown.excess_ms == 0.0


def test_the_excess_covers_the_share_asked_for() -> None:
    ratios = [1.0] * 90 + [1.5] * 6 + [2.0] * 4
    high, low = Slowdown(0.99), Slowdown(0.9)
    for slowdown in (high, low):
        for at in range(100):
            slowdown.observe(ratios[(at * 37) % 100], 1.0, at * 0.01)
    assert high.excess_ms is not None
    assert low.excess_ms is not None
    assert high.excess_ms >= 1.0
    assert low.excess_ms < 1.0


def test_a_stall_counts_as_long_for_a_quick_mode_as_for_a_slow_one() -> None:
    slowdown = Slowdown(0.99)
    for at in range(30):
        slowdown.observe(10.0 + (4.0 if at == 20 else 0.0), 10.0, at * 0.01)
    assert slowdown.excess_ms == 4.0


def test_a_steady_slowdown_ends_without_excess() -> None:
    slowdown = Slowdown(0.9)
    feed(slowdown, [4.0] * 200)
    assert (slowdown.factor, slowdown.excess_ms) == (4.0, 0.0)


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.0, 1.0), (0.25, 1.0), (0.26, 2.0), (0.5, 2.0), (0.75, 3.0), (0.99, 4.0), (1.0, 4.0)]
)
def test_a_quantile_is_the_least_value_that_covers_the_share(share: float, wanted: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == wanted


def test_one_thread_may_forget_while_another_observes() -> None:
    slowdown = Slowdown(0.99)
    failures: List[BaseException] = []
    over = threading.Event()

    def forget() -> None:
        try:
            while not over.is_set():
                slowdown.forget(slowdown_clock[0] + FORGET_S * 0.9)
        except BaseException as error:  # noqa: BLE001 - reported by the test
            failures.append(error)

    slowdown_clock = [0.0]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader = threading.Thread(target=forget)
    reader.start()
    try:
        for _ in range(3000):
            slowdown_clock[0] += FORGET_S / 50
            slowdown.observe(1.0, 1.0, slowdown_clock[0])
    finally:
        over.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert failures == []
