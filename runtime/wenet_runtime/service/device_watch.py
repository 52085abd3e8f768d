"""Watches the device while it serves: clocks that change, heat that holds them down, nvpmodel's power setting.

A thread rather than a task of the event loop, because reading a sensor may block (some lie behind a bus), and a
request must not wait for it.
"""

import logging
import math
import threading
import time
from collections import deque
from typing import Callable, Deque, Dict, List, Mapping, NamedTuple, Optional, Set

from wenet_runtime.conditions import Conditions
from wenet_runtime.device_state import DeviceState, read_limits, read_state
from wenet_runtime.thermal import (
    CLOCK_NOISE,
    FIRST_READINGS,
    LAST_READINGS,
    ThermalTrend,
    fastest_mhz,
    hot,
    throttled,
)

PERIOD_S = 1.0
ALLOWED_NOISE = 0.01  # an allowed clock is a step of a table: it does not wander, and steps lie further apart
STAYS = 2  # readings that must agree before a change is one
MAX_ZONES = 64
MAX_FAILURES = 16
CLOSING_S = 5.0

_LOG = logging.getLogger(__name__)


def _nothing(value: object) -> None:
    """What is called of a change that nobody asked for."""


class Callbacks(NamedTuple):
    """What is told, from the watch's own thread.

    Attributes:
        clock_changed: the fastest clock is now this times what it was.
        throttled: heat holds the device down, or does no longer; first told when it is first known.
        power_setting_changed: the new one.
        ticked: once a period, whatever the readings say; for what has to know that time passes.
    """

    clock_changed: Callable[[float], None] = _nothing
    throttled: Callable[[bool], None] = _nothing
    power_setting_changed: Callable[[str], None] = _nothing
    ticked: Callable[[], None] = lambda: None


class Steady:
    """A clock that counts as changed when so many readings in turn agree on a value beyond the noise."""

    def __init__(self, noise: float, stays: int) -> None:
        self._noise = noise
        self._stays = stays
        self._new: List[float] = []
        self._value: Optional[float] = None

    def changed(self, value: Optional[float]) -> Optional[float]:
        """The new over the old value when it has changed, otherwise None. An unknown value changes nothing."""
        if value is None or not 0 < value < math.inf:
            return None
        if self._value is None:
            self._value = value
        if self._near(value, self._value):
            self._new.clear()
            return None
        if self._new and not self._near(value, self._new[-1]):
            self._new.clear()
        self._new.append(value)
        if len(self._new) < self._stays:
            return None
        ratio, self._value = value / self._value, value
        self._new.clear()
        return ratio

    def _near(self, one: float, other: float) -> bool:
        return abs(one / other - 1) <= self._noise


class DeviceWatch:
    """Reads the device's state once a period and tells what changed.

    What counts as the clock is the highest that the system *allows*: a governor moves the present one with every
    pause between requests, while nvpmodel, a power limit and the kernel's cooling move the allowed one. Where no
    allowed clock is told it is the highest present one of the last readings, which a pause does not move.

    Args:
        told: what to call.
        period_s: time between readings.
        device: whose clocks count: names that start so, "cpu" or a GPU's "57000000.gpu".
        read: gives the state.
        limits: where each thermal zone starts to throttle, °C; read once if not given.
        clock: the monotonic clock.

    Attributes:
        throttled: the last verdict; None while unknown.
        power_setting: nvpmodel's; None if there is none.
        trends: the temperature of each zone.
    """

    def __init__(
        self,
        told: Callbacks,
        *,
        period_s: float = PERIOD_S,
        device: str = "cpu",
        read: Callable[[], DeviceState] = read_state,
        limits: Optional[Mapping[str, float]] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._told = told
        self._period_s = period_s
        self._device = device
        self._read = read
        self._limits = dict(read_limits() if limits is None else limits)
        self._clock = clock
        self._allowed = Steady(ALLOWED_NOISE, STAYS)
        # The highest of readings that overlap agrees with itself; of as many apart it does not.
        self._present = Steady(CLOCK_NOISE, LAST_READINGS)
        self._first: List[Conditions] = []
        self._last: Deque[Conditions] = deque(maxlen=LAST_READINGS)
        self._verdicts: Deque[bool] = deque(maxlen=STAYS)
        self._failures: Set[str] = set()
        self._closing = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self.trends: Dict[str, ThermalTrend] = {}
        self.throttled: Optional[bool] = None
        self.power_setting: Optional[str] = None

    @property
    def seconds_to_limit(self) -> Optional[float]:
        """When the first zone reaches its limit at the present rate; None when unknown."""
        times = [one.seconds_to_limit for one in list(self.trends.values())]
        return min((one for one in times if one is not None), default=None)

    @property
    def hottest(self) -> Optional[ThermalTrend]:
        """The trend of the zone that is the hottest now; None while no temperature is known."""
        known = [one for one in list(self.trends.values()) if one.temperature_c is not None]
        return max(known, key=lambda one: one.temperature_c or 0.0, default=None)

    def start(self) -> None:
        """Watch until closed."""
        self._thread = threading.Thread(target=self._run, name="wenet-device-watch", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = CLOSING_S) -> None:
        """Watch no longer."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            self.look()
            if self._closing.wait(self._period_s):
                return

    def look(self) -> None:
        """Read once and tell what changed. Never raises: each kind of failure is logged once."""
        try:
            self._told.ticked()
        except Exception as error:  # noqa: BLE001 - no callback may end the watch
            self._failed(error)
        try:
            state = self._read()
        except Exception as error:  # noqa: BLE001 - no sensor may end the watch
            self._failed(error)
            return
        for step in (self._look_at_power, self._look_at_heat, self._look_at_clocks):
            try:
                step(state)
            except Exception as error:  # noqa: BLE001 - no callback may end the watch
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        kind = f"{type(error).__name__}: {error}"
        if kind not in self._failures and len(self._failures) < MAX_FAILURES:
            self._failures.add(kind)
            _LOG.warning("watching the device failed and goes on: %s", kind)

    def _look_at_power(self, state: DeviceState) -> None:
        setting = state.power_setting
        if setting is None or setting == self.power_setting:
            return
        known, self.power_setting = self.power_setting is not None, setting
        if known:
            self._begin_again()
            self._told.power_setting_changed(setting)

    def _look_at_heat(self, state: DeviceState) -> None:
        now_s = self._clock()
        for name, degrees in state.conditions.temperatures_c.items():
            if name not in self.trends and len(self.trends) < MAX_ZONES:
                self.trends[name] = ThermalTrend(self._limit(name))
            if name in self.trends:
                self.trends[name].observe(degrees, now_s)
        if len(self._first) < FIRST_READINGS:
            self._first.append(state.conditions)
        else:
            self._last.append(state.conditions)
        history = [*self._first, *self._last]
        by_clock = throttled(history, self._hottest_limit(state), device=self._device)
        if by_clock is None and state.cooled is None and self.throttled is None:
            return
        self._verdicts.append(bool(by_clock) or bool(state.cooled))
        verdict = self._verdicts[-1]
        if len(self._verdicts) == STAYS and len(set(self._verdicts)) == 1 and verdict != self.throttled:
            self.throttled = verdict
            self._told.throttled(verdict)

    def _look_at_clocks(self, state: DeviceState) -> None:
        allowed = [mhz for name, mhz in state.allowed_mhz.items() if name.startswith(self._device)]
        if allowed:
            ratio = self._allowed.changed(max(allowed))
        elif len(self._last) == LAST_READINGS:
            clocks = [fastest_mhz(one, self._device) for one in self._last]
            ratio = self._present.changed(max((one for one in clocks if one is not None), default=None))
        else:
            return
        if ratio is None:
            return
        heat = state.cooled or self.throttled or hot(state.conditions.temperature_c, self._hottest_limit(state))
        if allowed and not heat:
            self._begin_again()
        self._told.clock_changed(ratio)

    def _begin_again(self) -> None:
        """Clocks are others from now on, and not for heat: it must not be taken for that when it gets hot."""
        self._first.clear()
        self._last.clear()

    def _limit(self, zone: str) -> Optional[float]:
        return self._limits.get(zone, self._limits.get(zone.rsplit(" ", 1)[0]))  # zones of one name are numbered

    def _hottest_limit(self, state: DeviceState) -> Optional[float]:
        degrees = state.conditions.temperatures_c
        return self._limit(max(degrees, key=lambda zone: degrees[zone])) if degrees else None
