"""The live filter: how much slower the device is than its profile right now, and how uncertain that is."""

import math
import threading
from collections import deque
from typing import Deque, Sequence, Tuple

# Worsening is believed after three of five requests, improving after most of the longer window. A core
# that is shared delays single requests by whole time slices, so fewer than three say little.
FAST_WINDOW = 5
SLOW_WINDOW = 15
RESIDUAL_WINDOW = 128
# Above this an idle engine is probed, because a device believed slow gets fewer requests to show it is not.
SLOW = 1.2
# What was seen longer ago than this says little about now: an idle device drifts back to its profile.
FORGET_S = 20.0
FLOOR = 0.5


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the ascending sequence does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Slowdown:
    """One factor for all modes, from the ratio measured / profiled of recent requests.

    Single outliers move neither median; they widen `tail`, the empirical quantile of what came over
    what was predicted, so the uncertainty is that of this device and not of a fitted curve.

    Args:
        attainment: the share of requests that `factor × tail` shall cover.
    """

    def __init__(self, attainment: float) -> None:
        self._attainment = attainment
        # The server's thread asks before queueing, the engine's thread asks again and observes.
        self._lock = threading.Lock()
        self._ratios: Deque[Tuple[float, float]] = deque(maxlen=SLOW_WINDOW)
        self._residuals: Deque[Tuple[float, float]] = deque(maxlen=RESIDUAL_WINDOW)
        self.factor = 1.0
        self.tail = 0.0  # 0: nothing seen yet, each mode's profile gives its own

    @property
    def slow(self) -> bool:
        """Whether the device is believed to be notably slower than its profile."""
        return self.factor > SLOW

    def observe(self, ratio: float, now_s: float) -> None:
        """Take in one finished inference: its time over the mode's profiled median."""
        with self._lock:
            self._residuals.append((now_s, ratio / self.factor))
            self._ratios.append((now_s, ratio))
            self._update(now_s)

    def forget(self, now_s: float) -> None:
        """Let old observations go; called before a decision, cheap when nothing is old."""
        with self._lock:
            if self._residuals and now_s - self._residuals[0][0] > FORGET_S:
                self._update(now_s)

    def _update(self, now_s: float) -> None:
        for window in (self._ratios, self._residuals):
            while window and now_s - window[0][0] > FORGET_S:
                window.popleft()
        ratios = [ratio for _, ratio in self._ratios]
        if len(ratios) < FAST_WINDOW:
            self.factor = 1.0
        else:
            fast = quantile(sorted(ratios[-FAST_WINDOW:]), 0.5)
            self.factor = max(fast, quantile(sorted(ratios), 0.5), FLOOR)
        residuals = sorted(residual for _, residual in self._residuals)
        # Too few to say anything of a tail: leave it to the profile.
        self.tail = quantile(residuals, self._attainment) if len(residuals) >= SLOW_WINDOW else 0.0
