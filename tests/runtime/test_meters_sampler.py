"""A sensor that is read at a steady rate: what it gives, what it fails to give, and when it has ended."""

import itertools
import logging
import math
import threading
import time
from typing import Callable, Iterator, List, Optional

import pytest

from tests.runtime.patience import PATIENCE_S, wait_until
from wenet_runtime.errors import MeterError
from wenet_runtime.meters.base import OK, STALE, STARTING, UNAVAILABLE
from wenet_runtime.meters.sampler import MAX_FAILURES, CounterReset, PolledMeter, TracedMeter
from wenet_runtime.meters.trace import PowerTrace

FAST_S = 0.001


class Sensor:
    """Gives what a test says, and counts how often it was asked."""

    def __init__(self, gives: Callable[[], Optional[float]] = lambda: 2.0) -> None:
        self.gives = gives
        self.asked = 0

    def __call__(self) -> Optional[float]:
        self.asked += 1
        return self.gives()


@pytest.fixture
def sensor() -> Sensor:
    return Sensor()


@pytest.fixture
def meter(sensor: Sensor) -> Iterator[PolledMeter]:
    """Of that sensor, whose readings hold for a long time."""
    one = PolledMeter("rail:X", "X", sensor, interval_s=FAST_S, trace=PowerTrace(PATIENCE_S))
    yield one
    one.close()


def test_readings_become_power_energy_and_a_state(meter: PolledMeter) -> None:
    wait_until(lambda: meter.power() is not None)
    start_s = time.monotonic()
    power, energy_mj, state = meter.power(), meter.energy_mj(start_s, start_s + 0.5), meter.state()
    assert power is not None
    assert (power.watts, power.rail, meter.source) == (2.0, "X", "rail:X")
    assert energy_mj == pytest.approx(1000.0)
    assert (state.status, state.detail, state.interval_s, state.stale_after_s) == (OK, "", FAST_S, PATIENCE_S)


def test_steps_of_a_counter_are_recorded_as_such(sensor: Sensor) -> None:
    trace = PowerTrace(PATIENCE_S)
    meter = PolledMeter("rapl", "all", sensor, interval_s=FAST_S, record=PowerTrace.add_energy, trace=trace)
    wait_until(lambda: sensor.asked > 10)
    meter.close()
    asked = sensor.asked
    times = list(trace._times)
    assert meter.energy_mj(times[0], times[-1]) == pytest.approx(2000.0 * (asked - 1))


def test_nothing_is_known_of_a_window_in_which_a_counter_was_set_back(sensor: Sensor) -> None:
    trace = PowerTrace(PATIENCE_S)
    meter = PolledMeter("rapl", "all", sensor, interval_s=FAST_S, record=PowerTrace.add_energy, trace=trace)
    wait_until(lambda: sensor.asked > 3)
    start_s = time.monotonic()
    again = threading.Event()

    def set_back() -> float:
        if again.is_set():
            return 2.0
        again.set()
        raise CounterReset("the counter went back")

    sensor.gives = set_back
    wait_until(again.is_set)
    asked = sensor.asked
    wait_until(lambda: sensor.asked > asked + 5)
    assert meter.energy_mj(start_s, trace._times[-1]) is None
    assert meter.energy_mj(trace._times[0], trace._times[-1]) is not None  # and goes on from there
    meter.close()


def test_a_reading_is_stamped_in_the_middle_of_the_time_it_took() -> None:
    stamps: List[float] = []
    done = threading.Event()

    def note(trace: PowerTrace, at_s: float, watts: float) -> None:
        stamps.append(at_s)
        done.set()

    clock_s = {"now": 0.0}

    def read() -> float:
        clock_s["now"] += 0.5  # it takes half a second
        return 1.0

    meter = PolledMeter("rail:X", "X", read, interval_s=PATIENCE_S, record=note, clock=lambda: clock_s["now"])
    assert done.wait(PATIENCE_S)
    meter.close()
    assert stamps == [0.25]


def test_a_reading_that_says_nothing_is_none(sensor: Sensor, meter: PolledMeter) -> None:
    sensor.gives = lambda: None
    asked = sensor.asked
    wait_until(lambda: sensor.asked > asked + 3)
    points = len(meter._trace._times)
    wait_until(lambda: sensor.asked > asked + 10)
    assert len(meter._trace._times) == points


def test_a_sensor_that_fails_leaves_a_gap_is_told_once_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> float:
        raise OSError("no bus")

    sensor = Sensor(fails)
    trace = PowerTrace(0.2)
    meter = PolledMeter("rail:X", "X", sensor, interval_s=FAST_S, trace=trace)
    wait_until(lambda: sensor.asked > 20)
    state = meter.state()
    assert (state.status, meter.power(), meter.energy_mj(0.0, 1.0)) == (STARTING, None, None)
    assert state.detail == "the sensor cannot be read (no bus)"
    assert [one.getMessage() for one in caplog.records] == ["rail:X: OSError: no bus"]
    sensor.gives = lambda: 3.0
    wait_until(lambda: meter.state().status == OK)
    assert meter.state().detail == ""
    sensor.gives = fails
    wait_until(lambda: meter.state().status == STALE)
    power = meter.power()
    assert meter.state().detail == "the sensor cannot be read (no bus)"
    assert power is not None
    assert power.watts == 3.0  # not 0
    assert power.age_s > 0.2
    now_s = time.monotonic()
    assert meter.energy_mj(now_s - 0.01, now_s) is None
    sensor.gives = lambda: None  # answers again, and says nothing
    wait_until(lambda: meter.state().detail == "")
    meter.close()


def test_failures_that_are_always_others_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    number = itertools.count()

    def fails() -> float:
        raise ValueError(f"failure {next(number)}")

    sensor = Sensor(fails)
    meter = PolledMeter("rail:X", "X", sensor, interval_s=FAST_S)
    wait_until(lambda: sensor.asked > 2 * MAX_FAILURES)
    meter.close()
    assert len([one for one in caplog.records if one.levelno == logging.WARNING]) == MAX_FAILURES


def test_a_meter_that_cannot_go_on_says_what_to_do_and_takes_back_what_it_read(
    sensor: Sensor, meter: PolledMeter, caplog: pytest.LogCaptureFixture
) -> None:
    wait_until(lambda: meter.power() is not None)
    start_s = time.monotonic()

    def ends() -> float:
        raise MeterError("the labels are wrong: do this")

    sensor.gives = ends
    wait_until(lambda: meter.state().status == UNAVAILABLE)
    assert meter.state().detail == "the labels are wrong: do this"
    assert meter.power() is None
    assert meter.energy_mj(start_s, start_s + 0.001) is None
    wait_until(lambda: not meter._thread.is_alive())
    assert [one.getMessage() for one in caplog.records] == ["rail:X: the labels are wrong: do this"]


def test_closing_stops_the_readings_and_may_be_done_twice(sensor: Sensor, meter: PolledMeter) -> None:
    wait_until(lambda: sensor.asked > 0)
    meter.close()
    meter.close()
    assert not meter._thread.is_alive()
    asked = sensor.asked
    time.sleep(0.02)
    assert sensor.asked == asked


def test_closing_waits_for_no_sensor_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wenet_runtime.meters.sampler.CLOSING_S", 0.05)
    hangs, reading = threading.Event(), threading.Event()

    def read() -> float:
        reading.set()
        hangs.wait(PATIENCE_S)
        return 1.0

    meter = PolledMeter("rail:X", "X", read, interval_s=FAST_S)
    assert reading.wait(PATIENCE_S)
    meter.close()
    assert meter.state().status == STARTING
    hangs.set()
    wait_until(lambda: not meter._thread.is_alive())


class Paced(PolledMeter):
    """Runs on the test's own thread and clock: readings take `took_s`, and after as many it is closed."""

    def __init__(self, *took_s: float) -> None:
        self.now_s = 100.0
        self.waits: List[float] = []
        self._took_s = took_s
        TracedMeter.__init__(self, "rail:X", "X", PowerTrace(10.0), interval_s=1.0, clock=lambda: self.now_s)
        self._read, self._record, self._ended = self._slowly, PowerTrace.add, ""
        self._closing = self  # type: ignore[assignment]
        self._run()

    def _slowly(self) -> float:
        self.now_s += self._took_s[len(self.waits)]
        return 1.0

    def wait(self, timeout_s: float) -> bool:
        self.waits.append(timeout_s)
        self.now_s += timeout_s
        return len(self.waits) == len(self._took_s)


def test_readings_are_due_at_a_steady_rate() -> None:
    meter = Paced(0.25, 0.25, 0.25)
    assert meter.waits == [0.75, 0.75, 0.75]
    assert list(meter._trace._times) == [100.125, 101.125, 102.125]


def test_what_a_slow_sensor_missed_is_not_made_up_for() -> None:
    meter = Paced(7.0, 7.0, 0.25)
    assert meter.waits == [0.0, 0.0, 0.75]
    assert list(meter._trace._times) == [103.5, 110.5, 114.125]


def test_the_age_limit_follows_from_the_interval_where_none_is_given() -> None:
    for interval_s, stale_s in ((0.02, 0.5), (0.2, 2.0)):
        meter = PolledMeter("rail:X", "X", lambda: 1.0, interval_s=interval_s)
        meter.close()
        assert meter.state().stale_after_s == stale_s


def test_energy_and_power_are_unknown_before_the_first_reading() -> None:
    meter = TracedMeter("rail:X", "X", PowerTrace(1.0), interval_s=1.0, clock=lambda: math.pi)
    assert (meter.power(), meter.energy_mj(0.0, 1.0), meter.state().status) == (None, None, STARTING)
    assert (meter.idle_w, meter.state().restarts, meter.state().resolution_mw) == (None, 0, None)
