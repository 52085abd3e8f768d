"""What the idle board draws: watched for a moment, and unknown where nobody tells."""

from typing import List, Optional

import pytest

from wenet_runtime.meters.base import OK, STALE, STARTING, UNAVAILABLE, MeterState
from wenet_runtime.meters.baseline import PATIENCE_S, measure_idle_w
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.meters.trace import PowerTrace


class Board:
    """A board on a clock of its own: its meter begins to read after `begins_s` and gives `watts`."""

    source = "rail:test"
    idle_w: Optional[float] = None

    def __init__(self, begins_s: float = 0.0, watts: Optional[float] = 1.5, silent: str = STARTING) -> None:
        self.now_s = 100.0
        self.slept: List[float] = []
        self._begins_s = self.now_s + begins_s
        self._watts = watts
        self._silent = silent
        self._trace = PowerTrace(0.5)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        end_s = self.now_s + seconds
        while self.now_s < end_s - 1e-9:
            self.now_s += 0.01
            if self.now_s >= self._begins_s and self._watts is not None:
                self._trace.add(self.now_s, self._watts + (0.2 if len(self._trace._times) % 2 else -0.2))

    def state(self) -> MeterState:
        return MeterState(OK if self._trace.fresh(self.now_s) else self._silent)

    def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
        return self._trace.energy_mj(start_s, end_s)

    def power(self) -> None:
        return None

    def close(self) -> None:
        return None


@pytest.mark.parametrize("begins_s", [0.0, 0.3, 4.0])
def test_it_is_the_mean_power_of_a_second_once_readings_come(begins_s: float) -> None:
    board = Board(begins_s)
    found = measure_idle_w(board, clock=lambda: board.now_s, sleep=board.sleep)
    assert found == pytest.approx(1.5, abs=0.01)
    assert board.slept[-1] == 1.0


def test_a_meter_that_never_begins_is_not_waited_for_for_long() -> None:
    board = Board(watts=None)
    assert measure_idle_w(board, clock=lambda: board.now_s, sleep=board.sleep) is None
    assert sum(board.slept) == pytest.approx(PATIENCE_S, abs=0.1)


@pytest.mark.parametrize("silent", [UNAVAILABLE, STALE])
def test_a_meter_that_says_it_cannot_is_not_waited_for(silent: str) -> None:
    board = Board(begins_s=0.5, silent=silent)
    assert measure_idle_w(board, clock=lambda: board.now_s, sleep=board.sleep) is None
    assert board.slept == []


def test_without_a_meter_nothing_is_watched() -> None:
    slept: List[float] = []
    assert measure_idle_w(NoMeter(), sleep=slept.append) is None
    assert slept == []


def test_a_meter_that_falls_silent_meanwhile_tells_nothing() -> None:
    board = Board()
    board.sleep(0.1)
    board._watts = None
    assert measure_idle_w(board, clock=lambda: board.now_s, sleep=board.sleep) is None
