"""Readings of power over time, and their integral over any window: what all sampled meters share."""

import math
import threading
from array import array
from bisect import bisect_right
from typing import Optional, Tuple

KEPT_S = 600.0
_TRIM = 4096  # points that are dropped at once, so that dropping costs nothing per reading


class PowerTrace:
    """A bounded record of readings, stamped by the monotonic clock. Any thread may write and read.

    Between readings of power it is taken to change in a straight line, between those of a counter not at all; from
    the last reading to now its power is taken to hold, for at most `stale_after_s`. Between readings further apart
    than that nothing is known, and so nothing of a window that reaches over such a gap.

    Args:
        stale_after_s: from which age on a reading says nothing.
        kept_s: how long readings are kept.
    """

    def __init__(self, stale_after_s: float, kept_s: float = KEPT_S) -> None:
        self.stale_after_s = stale_after_s
        self._kept_s = kept_s
        self._lock = threading.Lock()
        self._times = array("d")  # of the present stretch without gaps, ascending
        self._joules = array("d")  # since the stretch began
        self._rises = array("d")  # by how much power changed since the reading before, W
        self._watts = math.nan  # the last reading
        self._previous = math.nan
        self._step_w: Optional[float] = None
        self._open = False

    def add(self, at_s: float, watts: float) -> None:
        """One reading of power. One that is not later than the last, or impossible, is dropped."""
        if not (0.0 <= watts < math.inf and math.isfinite(at_s)):
            return
        with self._lock:
            if self._continues(at_s):
                joules = self._joules[-1] + (self._watts + watts) / 2 * (at_s - self._times[-1])
                rise_w = watts - self._watts
            elif self._times and at_s <= self._times[-1]:
                return
            else:
                self._begin()
                joules = rise_w = 0.0
            self._append(at_s, watts, joules, rise_w)
            self._resolve(watts)

    def add_energy(self, at_s: float, joules: float) -> None:
        """One step of an energy counter: what was used since the reading before, J. The first one only begins."""
        if not (0.0 <= joules < math.inf and math.isfinite(at_s)):
            return
        with self._lock:
            if self._continues(at_s):
                watts = joules / (at_s - self._times[-1])
                self._append(at_s, watts, self._joules[-1] + joules)
            elif not self._times or at_s > self._times[-1]:
                self._begin()
                self._append(at_s, math.nan, 0.0)

    def interrupt(self) -> None:
        """What is read from has ended: nothing is known from here to the next reading."""
        with self._lock:
            self._open = False

    def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
        """Energy of a window, mJ; None where readings do not cover it."""
        with self._lock:
            begun, ended = self._at(start_s), self._at(end_s)
        if begun is None or ended is None or end_s < start_s:
            return None
        return (ended - begun) * 1e3

    def latest(self, now_s: float) -> Optional[Tuple[float, float]]:
        """(watts, age in s) of the last reading, however old; None before the first."""
        with self._lock:
            if not self._times or math.isnan(self._watts):
                return None
            return self._watts, max(0.0, now_s - self._times[-1])

    def fresh(self, now_s: float) -> bool:
        """Whether the last reading says something about now."""
        with self._lock:
            known = self._open and bool(self._times) and not math.isnan(self._watts)
            return known and now_s - self._times[-1] <= self.stale_after_s

    @property
    def resolution_mw(self) -> Optional[float]:
        """The smallest step between readings of power seen so far, mW; None before two differed, and of a counter."""
        return None if self._step_w is None else self._step_w * 1e3

    def _continues(self, at_s: float) -> bool:
        return self._open and bool(self._times) and 0.0 < at_s - self._times[-1] <= self.stale_after_s

    def _begin(self) -> None:
        del self._times[:], self._joules[:], self._rises[:]
        self._watts = math.nan
        self._open = True

    def _append(self, at_s: float, watts: float, joules: float, rise_w: float = 0.0) -> None:
        self._watts = watts
        self._times.append(at_s)
        self._joules.append(joules)
        self._rises.append(rise_w)
        if len(self._times) > 2 * _TRIM and self._times[_TRIM] < at_s - self._kept_s:
            del self._times[:_TRIM], self._joules[:_TRIM], self._rises[:_TRIM]

    def _resolve(self, watts: float) -> None:
        step_w = abs(watts - self._previous)
        if step_w > 1e-9 and (self._step_w is None or step_w < self._step_w):  # false for NaN
            self._step_w = step_w
        self._previous = watts

    def _at(self, when_s: float) -> Optional[float]:
        """Joules since the stretch began; None where it is not known."""
        times, joules = self._times, self._joules
        if not times or not times[0] <= when_s:  # false for NaN
            return None
        beyond_s = when_s - times[-1]
        if beyond_s >= 0.0:
            held = self._open or beyond_s == 0.0
            known = held and beyond_s <= self.stale_after_s and not (beyond_s and math.isnan(self._watts))
            return joules[-1] + (self._watts * beyond_s if beyond_s else 0.0) if known else None
        right = bisect_right(times, when_s)
        lasted_s = times[right] - times[right - 1]
        share = (when_s - times[right - 1]) / lasted_s
        # A straight line lies below its mean before the middle, if it rises.
        bend = self._rises[right] * lasted_s / 2 * share * (1.0 - share)
        return joules[right - 1] + share * (joules[right] - joules[right - 1]) - bend
