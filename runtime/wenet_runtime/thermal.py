"""Heat, as pure functions of readings: how fast a zone warms, when it reaches its limit, whether a clock gave way."""

import math
from collections import deque
from typing import Deque, List, Optional, Sequence, Tuple

from wenet_runtime.conditions import COLDEST_C, HOTTEST_C, Conditions

WINDOW_S = 60.0
SAMPLES = 60  # kept of a window; more say no more, and the slope is taken over all their pairs
SPACING_S = 0.9 * WINDOW_S / SAMPLES
LEAST_SAMPLES = 5
LEAST_SPAN_S = 10.0
LATEST = 3  # the temperature now is the median of so many, so that one wild reading is none
# Slower than this says nothing: sensors step by half a degree, which over a minute is 0.008 °C/s.
STEADY_C_PER_S = 0.01

FIRST_READINGS = 5
LAST_READINGS = 10  # a governor lets the clock dip between requests, but not for so long under load
# A turbo clock wanders by less, and the steps of a throttled clock are larger (a Jetson Nano's are 7 %).
CLOCK_NOISE = 0.05
NEAR_C = 5.0  # a device that is hot and idle cools by this long before the readings below are over
HOT_C = 75.0  # where the limit is not told: boards give way at 80 °C and above

UNKNOWN, COOLING, STEADY, WARMING, AT_LIMIT = "unknown", "cooling", "steady", "warming", "at-limit"


def believable(temperature_c: Optional[float]) -> bool:
    """Whether a temperature can be one; a sensor that is off says something beyond."""
    return temperature_c is not None and COLDEST_C < temperature_c < HOTTEST_C  # false of NaN


class ThermalTrend:
    """One zone's temperature over the last minute.

    Args:
        limit_c: where the device starts to throttle; None if it does not tell.
    """

    def __init__(self, limit_c: Optional[float] = None) -> None:
        self.limit_c = limit_c if believable(limit_c) else None
        self._samples: Deque[Tuple[float, float]] = deque(maxlen=SAMPLES)  # seconds, °C

    def observe(self, temperature_c: Optional[float], now_s: float) -> None:
        """Take in a reading. What can be no temperature is left out; a clock that ran back starts afresh.

        Args:
            temperature_c: None when the sensor gave nothing.
            now_s: the monotonic clock.
        """
        if not math.isfinite(now_s):
            return
        if self._samples and now_s < self._samples[-1][0]:
            self._samples.clear()
        while self._samples and now_s - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()
        if temperature_c is None or not believable(temperature_c):
            return
        if len(self._samples) > 1 and self._samples[-1][0] - self._samples[-2][0] < SPACING_S:
            self._samples.pop()  # read more often than needed
        self._samples.append((now_s, temperature_c))

    @property
    def temperature_c(self) -> Optional[float]:
        """The temperature now; None when unknown."""
        return _median([one for _, one in list(self._samples)[-LATEST:]])

    @property
    def slope_c_per_s(self) -> Optional[float]:
        """How fast it rises: the median slope of all pairs (Theil and Sen), which wild readings cannot move.

        None when there are too few readings or they span too little time.
        """
        samples = list(self._samples)
        if len(samples) < LEAST_SAMPLES or samples[-1][0] - samples[0][0] < LEAST_SPAN_S:
            return None
        return _median(
            [
                (later[1] - earlier[1]) / (later[0] - earlier[0])
                for number, later in enumerate(samples)
                for earlier in samples[:number]
                if later[0] > earlier[0]
            ]
        )

    @property
    def seconds_to_limit(self) -> Optional[float]:
        """When it reaches its limit at this rate: 0 at the limit, infinity if it does not rise, None when unknown."""
        now_c = self.temperature_c
        if now_c is None or self.limit_c is None:
            return None
        if now_c >= self.limit_c:
            return 0.0
        slope = self.slope_c_per_s
        if slope is None:
            return None
        return (self.limit_c - now_c) / slope if slope > STEADY_C_PER_S else math.inf

    @property
    def state(self) -> str:
        """`unknown`, `cooling`, `steady`, `warming` or `at-limit`."""
        slope = self.slope_c_per_s
        if self.seconds_to_limit == 0:
            return AT_LIMIT
        if slope is None:
            return UNKNOWN
        if abs(slope) <= STEADY_C_PER_S:
            return STEADY
        return WARMING if slope > 0 else COOLING


def hot(temperature_c: Optional[float], limit_c: Optional[float] = None) -> Optional[bool]:
    """Whether a device may be throttling; None of an unknown temperature."""
    if temperature_c is None or not believable(temperature_c):
        return None
    return temperature_c >= (limit_c - NEAR_C if limit_c is not None and believable(limit_c) else HOT_C)


def throttled(history: Sequence[Conditions], limit_c: Optional[float] = None, *, device: str = "cpu") -> Optional[bool]:
    """Whether heat holds the clock down: it fell below that of the first readings, for long, while hot.

    Args:
        history: readings, oldest first, about one a second; the first of them from when it was not throttled.
        limit_c: where the hottest zone starts to throttle; None if it does not tell.
        device: whose clocks count: names that start so.

    Returns:
        None when clocks or temperatures are unknown or there are too few readings.
    """
    first, last = history[:FIRST_READINGS], history[FIRST_READINGS:][-LAST_READINGS:]
    before, now = _clocks(first, device), _clocks(last, device)
    degrees = (one.temperature_c for one in last)
    is_hot = hot(_median([one for one in degrees if one is not None and believable(one)]), limit_c)
    if len(last) < LAST_READINGS or not before or not now or is_hot is None:
        return None
    return is_hot and max(now) < max(before) * (1 - CLOCK_NOISE)


def _clocks(history: Sequence[Conditions], device: str) -> List[float]:
    clocks = (fastest_mhz(one, device) for one in history)
    return [mhz for mhz in clocks if mhz is not None]


def fastest_mhz(conditions: Conditions, device: str) -> Optional[float]:
    """The fastest clock of those whose names start so; None when unknown."""
    clocks = (mhz for name, mhz in conditions.clocks_mhz.items() if name.startswith(device))
    return max((mhz for mhz in clocks if 0 < mhz < math.inf), default=None)


def _median(values: List[float]) -> Optional[float]:
    if not values:
        return None
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
