"""The watch tells changes that stay, and nothing that wanders; no sensor and no callback ends it."""

import logging
import random
import threading
from typing import Any, Dict, List, Optional

import pytest

from tests.runtime.fakes import PATIENCE_S
from wenet_runtime.conditions import Conditions
from wenet_runtime.device_state import DeviceState
from wenet_runtime.service.device_watch import Callbacks, DeviceWatch
from wenet_runtime.thermal import ThermalTrend


class Board:
    """A device whose state a test sets; it is read once a second of its own clock."""

    def __init__(self, **more: Any) -> None:
        self.clocks: Dict[str, float] = {"cpu0": 1479.0}
        self.allowed: Dict[str, float] = {"cpu0": 1479.0}
        self.degrees: Optional[float] = 50.0
        self.cooled: Optional[bool] = None
        self.setting: Optional[str] = None
        self.now_s = 0.0
        self.told: List[Any] = []
        callbacks = Callbacks(
            clock_changed=lambda ratio: self.told.append(("clock", round(ratio, 3))),
            throttled=lambda now: self.told.append(("throttled", now)),
            power_setting_changed=lambda name: self.told.append(("power", name)),
        )
        self.watch = DeviceWatch(
            callbacks, read=self.state, limits={"CPU-therm": 97.0}, clock=lambda: self.now_s, **more
        )

    def state(self) -> DeviceState:
        warm = {} if self.degrees is None else {"CPU-therm": self.degrees}
        return DeviceState(Conditions(dict(self.clocks), warm), dict(self.allowed), self.cooled, self.setting)

    def look(self, times: int = 1) -> List[Any]:
        """What the next readings tell."""
        before = len(self.told)
        for _ in range(times):
            self.now_s += 1
            self.watch.look()
        return self.told[before:]


def test_a_steady_device_tells_only_that_it_is_not_throttled() -> None:
    board = Board()
    assert board.look(100) == [("throttled", False)]


def test_an_allowed_clock_counts_when_it_stays() -> None:
    board = Board()
    board.look(3)
    board.allowed["cpu0"] = 918.0
    assert board.look() == []
    assert board.look() == [("clock", 0.621)]
    assert board.look(8) == []
    board.allowed["cpu0"] = 1479.0
    assert board.look(3) == [("clock", 1.611)]


def test_an_allowed_clock_that_comes_back_or_goes_on_moving_is_not_told() -> None:
    board = Board()
    board.look(3)
    for allowed in (918.0, 1479.0, 1224.0, 918.0, 714.0, 1479.0):
        board.allowed["cpu0"] = allowed
        assert board.look() == []


def test_the_governor_s_wandering_is_no_change_while_an_allowed_clock_is_told() -> None:
    board, chance = Board(), random.Random(5)
    for _ in range(300):
        board.clocks["cpu0"] = chance.choice([102.0, 710.0, 1479.0])
        assert [one for one in board.look() if one[0] == "clock"] == []


def test_without_an_allowed_clock_only_a_peak_that_stays_lower_counts() -> None:
    board, chance = Board(), random.Random(6)
    board.allowed = {}
    board.degrees = None
    for number in range(200):
        board.clocks["cpu0"] = 1479.0 if number % 5 == 0 else chance.uniform(102, 1479)
        assert board.look() == []
    board.clocks["cpu0"] = 918.0
    assert board.look(13) == []
    assert board.look(7) == [("clock", 0.621)]
    board.clocks["cpu0"] = 1479.0
    assert board.look(10) == [("clock", 1.611)]


def test_a_system_that_tells_nothing_is_never_changed_or_throttled() -> None:
    board = Board()
    board.allowed, board.clocks, board.degrees = {}, {}, None
    assert board.look(50) == []
    assert board.watch.throttled is None
    assert board.watch.seconds_to_limit is None


def test_a_clock_that_gives_way_in_the_heat_is_throttling_until_it_comes_back() -> None:
    board = Board()
    assert board.look(20) == [("throttled", False)]
    board.degrees, board.clocks["cpu0"] = 96.0, 1036.0
    assert board.look(12) == [("throttled", True)]
    assert board.look(30) == []
    board.clocks["cpu0"] = 1479.0
    assert board.look(2) == [("throttled", False)]


def test_the_kernel_s_own_cooling_is_throttling_and_its_clock_is_told() -> None:
    board = Board()
    board.cooled = False
    assert board.look(20) == [("throttled", False)]
    board.degrees, board.cooled, board.allowed["cpu0"], board.clocks["cpu0"] = 90.0, True, 1224.0, 1224.0
    assert board.look(2) == [("throttled", True), ("clock", 0.828)]
    board.cooled, board.allowed["cpu0"], board.clocks["cpu0"], board.degrees = False, 1479.0, 1479.0, 80.0
    assert board.look(2) == [("throttled", False), ("clock", 1.208)]


def test_one_reading_is_no_throttling() -> None:
    board = Board()
    board.cooled = False
    board.look(20)
    board.cooled = True
    assert board.look() == []
    board.cooled = False
    assert board.look(5) == []


def test_throttling_ends_when_nothing_tells_of_it_any_more() -> None:
    board = Board()
    board.cooled = True
    assert board.look(2) == [("throttled", True)]
    board.cooled = board.degrees = None
    assert board.look(2) == [("throttled", False)]


def test_a_power_setting_is_told_when_it_changes_and_its_clock_is_not_taken_for_heat() -> None:
    board = Board()
    board.setting = "MAXN"
    assert board.look(20) == [("throttled", False)]
    assert board.watch.power_setting == "MAXN"
    board.setting, board.allowed["cpu0"], board.clocks["cpu0"] = "5W", 918.0, 918.0
    assert board.look(2) == [("power", "5W"), ("clock", 0.621)]
    board.degrees = 96.0
    assert board.look(40) == []
    board.setting = None  # nvpmodel is just writing its file
    assert board.look(2) == []
    board.setting = "5W"
    assert board.look(2) == []


def test_a_cap_set_by_hand_while_cool_is_not_taken_for_heat_later() -> None:
    board = Board()
    board.look(20)
    board.allowed["cpu0"] = board.clocks["cpu0"] = 918.0
    assert board.look(2) == [("clock", 0.621)]
    board.degrees = 96.0
    assert board.look(40) == []


def test_another_device_s_clock_can_be_the_one_that_counts() -> None:
    board = Board(device="57000000.gpu")
    board.allowed["57000000.gpu"] = 921.6
    board.look(3)
    board.allowed["cpu0"] = 918.0
    assert [one for one in board.look(3) if one[0] == "clock"] == []
    board.allowed["57000000.gpu"] = 640.0
    assert [one for one in board.look(3) if one[0] == "clock"] == [("clock", 0.694)]


def test_the_time_to_the_limit_is_that_of_the_zone_that_comes_first() -> None:
    board = Board()
    for _ in range(30):
        board.degrees = (board.degrees or 0) + 0.5
        board.look()
    assert board.watch.seconds_to_limit == pytest.approx((97 - 64.5) / 0.5)


def test_the_hottest_zone_is_known_once_a_temperature_is() -> None:
    board = Board()
    assert board.watch.hottest is None
    board.degrees = None
    board.look()
    assert board.watch.hottest is None
    board.degrees = 60.0
    board.look()
    cooler = board.watch.trends["Board"] = ThermalTrend()
    cooler.observe(20.0, board.now_s)
    assert board.watch.hottest is board.watch.trends["CPU-therm"]


def test_it_ticks_once_a_reading_also_where_there_is_no_sensor(caplog: pytest.LogCaptureFixture) -> None:
    ticks: List[int] = []

    def read() -> DeviceState:
        raise OSError("no bus")

    def ticked() -> None:
        ticks.append(1)
        raise RuntimeError("a defect")

    watch = DeviceWatch(Callbacks(ticked=ticked), read=read, limits={})
    for _ in range(3):
        watch.look()
    assert len(ticks) == 3
    assert len(caplog.records) == 2  # each kind of failure once


def test_absurd_clocks_change_nothing() -> None:
    board = Board()
    board.look(20)
    for absurd in (float("nan"), float("inf"), 0.0, -1.0):
        board.allowed["cpu0"] = board.clocks["cpu0"] = absurd
        assert board.look(15) == []


def test_a_sensor_or_a_callback_that_fails_is_logged_once_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: List[bool] = []
    states: List[Any] = [OSError("no bus")] * 3
    states += [DeviceState(Conditions(), {"cpu0": 1000.0}, False, "MAXN")] * 3
    states += [DeviceState(Conditions(), {"cpu0": 500.0}, True, "5W")] * 3

    def read() -> DeviceState:
        state = states.pop(0)
        if isinstance(state, Exception):
            raise state
        return state

    def fail(value: object) -> None:
        raise RuntimeError("a defect")

    watch = DeviceWatch(Callbacks(fail, told.append, fail), read=read, limits={})
    with caplog.at_level(logging.WARNING):
        for _ in range(9):
            watch.look()
    assert told == [False, True]
    assert [one.message for one in caplog.records] == [
        "watching the device failed and goes on: OSError: no bus",
        "watching the device failed and goes on: RuntimeError: a defect",
    ]


def test_the_thread_reads_until_it_is_closed() -> None:
    reads = threading.Semaphore(0)

    def read() -> DeviceState:
        reads.release()
        raise OSError("no bus")

    watch = DeviceWatch(Callbacks(), period_s=0.001, read=read, limits={})
    watch.start()
    assert all(reads.acquire(timeout=PATIENCE_S) for _ in range(3))
    watch.close()
    assert watch._thread is not None
    assert not watch._thread.is_alive()


def test_closing_does_not_wait_for_the_period() -> None:
    watch = DeviceWatch(Callbacks(), period_s=3600, read=lambda: DeviceState(Conditions()), limits={})
    watch.start()
    watch.close(PATIENCE_S)
    assert watch._thread is not None
    assert not watch._thread.is_alive()
