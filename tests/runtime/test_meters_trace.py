"""A trace of readings: its integral is the plain one, and nothing is known where readings are missing."""

import math
import sys
import threading
from typing import List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenet_runtime.meters.trace import PowerTrace

STALE_S = 1.0
NAN, INF = float("nan"), float("inf")

Readings = List[Tuple[float, float]]


@st.composite
def readings(draw: st.DrawFn) -> Readings:
    """(s, W), ascending; some further apart than `STALE_S`."""
    at_s, found = draw(st.floats(0.0, 1e6)), []
    gap = draw(st.sampled_from((0, 0, 0, 1, 5)))
    for number in range(draw(st.integers(1, 20))):
        at_s += draw(st.floats(0.001, 0.9)) + (1.5 if gap and number == gap else 0.0)
        found.append((at_s, draw(st.floats(0.0, 50.0))))
    return found


def in_turn(read: Readings) -> List[Tuple[Tuple[float, float], Tuple[float, float]]]:
    """Each reading with the next one."""
    return list(zip(read, read[1:]))


def plain_mj(read: Readings, start_s: float, end_s: float) -> Optional[float]:
    """The integral by the definition: every piece of every straight line within the window."""
    lines = in_turn([*read, (read[-1][0] + STALE_S, read[-1][1])])
    mj = 0.0
    if start_s < read[0][0] or end_s > read[-1][0] + STALE_S:
        return None
    for (a_s, a_w), (b_s, b_w) in lines:
        low, high = max(a_s, start_s), min(b_s, end_s)
        if high < low or (high == low and (low, high) != (start_s, end_s)):
            continue
        if b_s - a_s > STALE_S + 1e-9:
            return None
        slope = (b_w - a_w) / (b_s - a_s)
        mj += ((a_w + slope * (low - a_s)) + (a_w + slope * (high - a_s))) / 2 * (high - low) * 1e3
    return mj


@given(readings(), st.floats(0.0, 0.999), st.floats(0.0, 0.999))
def test_energy_is_the_plain_integral_of_the_last_stretch_without_gaps(
    read: Readings, one: float, other: float
) -> None:
    trace = PowerTrace(STALE_S)
    for at_s, watts in read:
        trace.add(at_s, watts)
    span_s = read[-1][0] + STALE_S - read[0][0]
    start_s, end_s = sorted(read[0][0] + share * span_s for share in (one, other))
    gaps = [after for (before, _), (after, _) in in_turn(read) if after - before > STALE_S]
    found = trace.energy_mj(start_s, end_s)
    if gaps and start_s < gaps[-1]:
        assert found is None
    else:
        assert found == pytest.approx(plain_mj(read, start_s, end_s), rel=1e-6, abs=1e-3)


@given(readings(), st.integers(0, 38))
def test_counted_energy_is_exact_between_readings(read: Readings, first: int) -> None:
    trace = PowerTrace(STALE_S)
    joules = [step for _, step in read]  # the same numbers, taken for what was counted
    for at_s, step in read:
        trace.add_energy(at_s, step)
    first = min(first, len(read) - 1)
    gap = any(b[0] - a[0] > STALE_S for a, b in in_turn(read[first:]))
    found = trace.energy_mj(read[first][0], read[-1][0])
    if gap:
        assert found is None
    else:
        assert found == pytest.approx(sum(joules[first + 1 :]) * 1e3, abs=1e-6)


def test_within_a_line_that_rises_the_first_half_takes_less() -> None:
    trace = PowerTrace(STALE_S)
    trace.add(0.0, 0.0)
    trace.add(1.0, 4.0)
    assert trace.energy_mj(0.0, 0.5) == pytest.approx(500.0)
    assert trace.energy_mj(0.5, 1.0) == pytest.approx(1500.0)


def test_a_counter_s_first_reading_says_nothing_of_power() -> None:
    trace = PowerTrace(STALE_S)
    trace.add_energy(10.0, 5.0)
    assert trace.latest(10.0) is None
    assert not trace.fresh(10.0)
    assert trace.energy_mj(10.0, 10.1) is None  # what it draws from now on is not known
    trace.add_energy(10.5, 2.0)
    assert trace.latest(10.5) == (4.0, 0.0)
    assert trace.fresh(10.5)
    assert trace.energy_mj(10.0, 10.5) == pytest.approx(2000.0)
    assert trace.energy_mj(10.25, 10.75) == pytest.approx(2000.0)  # half a step, and as much held
    assert trace.resolution_mw is None


def test_a_reading_holds_until_it_is_stale_and_no_longer() -> None:
    trace = PowerTrace(STALE_S)
    trace.add(10.0, 3.0)
    assert trace.energy_mj(10.0, 11.0) == pytest.approx(3000.0)
    assert trace.energy_mj(10.0, 11.001) is None
    assert trace.energy_mj(9.999, 10.5) is None
    assert trace.fresh(11.0)
    assert not trace.fresh(11.001)
    assert trace.latest(12.5) == (3.0, 2.5)  # however old, and said to be


def test_a_gap_begins_anew_and_windows_that_touch_it_are_unknown() -> None:
    trace = PowerTrace(STALE_S)
    for at_s in (0.0, 0.5, 5.0, 5.5):
        trace.add(at_s, 2.0)
    assert trace.energy_mj(5.0, 5.5) == pytest.approx(1000.0)
    for window in ((0.0, 5.5), (0.5, 5.0), (3.0, 5.2), (4.999, 5.0)):
        assert trace.energy_mj(*window) is None


def test_an_interruption_is_a_gap_however_short() -> None:
    trace = PowerTrace(STALE_S)
    trace.add(0.0, 2.0)
    trace.add(0.5, 2.0)
    trace.interrupt()
    assert trace.energy_mj(0.0, 0.5) == pytest.approx(1000.0)  # was read before
    assert trace.energy_mj(0.0, 0.6) is None
    assert not trace.fresh(0.5)
    assert trace.latest(0.7) == (2.0, pytest.approx(0.2))
    trace.add(0.8, 2.0)
    assert trace.energy_mj(0.4, 0.9) is None
    assert trace.energy_mj(0.8, 0.9) == pytest.approx(200.0)
    assert trace.fresh(0.9)


def test_nothing_is_known_before_the_first_reading() -> None:
    trace = PowerTrace(STALE_S)
    assert trace.latest(1.0) is None
    assert not trace.fresh(1.0)
    assert trace.energy_mj(1.0, 2.0) is None
    trace.interrupt()
    assert trace.energy_mj(1.0, 2.0) is None


@pytest.mark.parametrize("window", [(0.5, 0.2), (NAN, 0.5), (0.2, NAN), (-INF, 0.5), (0.2, INF)])
def test_a_window_that_is_none_has_no_energy(window: Tuple[float, float]) -> None:
    trace = PowerTrace(STALE_S)
    trace.add(0.0, 2.0)
    trace.add(0.9, 2.0)
    assert trace.energy_mj(*window) is None


@pytest.mark.parametrize(
    ("at_s", "value"),
    [(1.0, NAN), (1.0, INF), (1.0, -1.0), (NAN, 1.0), (INF, 1.0), (-INF, 1.0), (0.5, 9.0), (0.4, 9.0)],
)
def test_what_can_be_no_reading_or_comes_too_late_changes_nothing(at_s: float, value: float) -> None:
    for add in (PowerTrace.add, PowerTrace.add_energy):
        trace = PowerTrace(STALE_S)
        for known_s in (0.0, 0.5):
            add(trace, known_s, 2.0)
        before = trace.energy_mj(0.0, 0.75), trace.latest(1.0)
        add(trace, at_s, value)
        assert (trace.energy_mj(0.0, 0.75), trace.latest(1.0)) == before
        add(trace, 0.75, 2.0)
        assert trace.energy_mj(0.0, 0.75) is not None


def test_the_resolution_is_the_smallest_step_between_readings() -> None:
    trace = PowerTrace(STALE_S)
    for number, watts in enumerate((1.0, 1.0, 1.084)):
        trace.add(number / 10, watts)
    assert trace.resolution_mw == pytest.approx(84.0)
    for number, watts in enumerate((1.042, 1.2), 10):
        trace.add(number / 10, watts)
    assert trace.resolution_mw == pytest.approx(42.0)


def test_of_one_value_no_resolution_is_known() -> None:
    trace = PowerTrace(STALE_S)
    for number in range(5):
        trace.add(number / 10, 1.0)
    assert trace.resolution_mw is None


def test_readings_are_kept_for_a_while_and_then_forgotten() -> None:
    trace = PowerTrace(STALE_S, kept_s=10.0)
    count = 50_000
    for number in range(count):
        trace.add(number / 100, 1.0)
    now_s = (count - 1) / 100
    assert trace.energy_mj(now_s - 10.0, now_s) == pytest.approx(10_000.0)
    assert trace.energy_mj(0.0, now_s) is None
    kept = len(trace._times)
    assert kept < 10_000
    assert len(trace._joules) == kept


def test_energy_of_a_short_window_is_exact_after_a_month() -> None:
    trace = PowerTrace(3600.0, kept_s=7200.0)
    for hour in range(30 * 24):
        trace.add(hour * 3600.0, 60.0)
    now_s = (30 * 24 - 1) * 3600.0
    assert trace.energy_mj(now_s, now_s + 0.004) == pytest.approx(240.0, rel=1e-4)


def test_readers_never_see_half_a_reading() -> None:
    trace, wrong, ended = PowerTrace(STALE_S, kept_s=0.0), [], threading.Event()
    newest = [0.0]

    def write() -> None:
        for number in range(1, 40_000):
            trace.add(number * 0.01, 2.0)
            newest[0] = number * 0.01
        ended.set()

    def read() -> None:
        while not ended.is_set():
            end_s = newest[0]
            found = trace.energy_mj(end_s - 0.05, end_s)
            if found is not None and not math.isclose(found, 100.0, rel_tol=1e-6):
                wrong.append(found)
            trace.latest(end_s)
            trace.fresh(end_s)

    switching_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=one) for one in (write, read, read)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switching_s)
    assert wrong == []
