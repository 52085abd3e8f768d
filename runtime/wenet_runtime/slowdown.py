"""The live filter: how much slower the device is than its profile right now, and how uncertain that is."""

import math
import threading
from collections import deque
from typing import Deque, Optional, Sequence, Tuple

# Worsening is believed when four of the last five requests show it, improving when most of the longer
# window does. Fewer say little: a core that is shared delays single requests by whole time slices.
FAST_WINDOW = 5
FAST_RANK = 1  # the second smallest of the fast window: one lucky request hides nothing
SLOW_WINDOW = 15
EXCESS_WINDOW = 128
# What was seen longer ago than this says little about now: an idle device drifts back to its profile.
FORGET_S = 20.0
FLOOR = 0.5


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the ascending sequence does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Slowdown:
    """One factor for all modes, from measured over profiled time of recent requests.

    What slows every request (lower clocks) moves `factor`. What stalls some of them (a time slice lost to
    another process) does not, but widens `excess_ms`, the empirical quantile of what came on top of
    factor × profile. It is kept in milliseconds because a stall is as long for a quick mode as for a slow
    one, and it is that of this device, not of a fitted curve.

    Args:
        attainment: the share of requests that factor × profile + `excess_ms` shall cover.
    """

    def __init__(self, attainment: float) -> None:
        self._attainment = attainment
        # The server's thread asks before queueing, the engine's thread asks again and observes.
        self._lock = threading.Lock()
        self._ratios: Deque[Tuple[float, float]] = deque(maxlen=SLOW_WINDOW)
        self._excesses: Deque[Tuple[float, float]] = deque(maxlen=EXCESS_WINDOW)
        self.factor = 1.0
        self.excess_ms: Optional[float] = None  # None: too little seen, each mode's profile gives its own

    def observe(self, measured_ms: float, profiled_ms: float, now_s: float) -> None:
        """Take in one finished inference: its time, and the mode's profiled median for the same batch."""
        with self._lock:
            self._excesses.append((now_s, max(0.0, measured_ms - self.factor * profiled_ms)))
            self._ratios.append((now_s, measured_ms / profiled_ms))
            self._update(now_s)

    def forget(self, now_s: float) -> None:
        """Let old observations go; called before a decision, cheap when nothing is old."""
        with self._lock:
            if self._excesses and now_s - self._excesses[0][0] > FORGET_S:
                self._update(now_s)

    def _update(self, now_s: float) -> None:
        for window in (self._ratios, self._excesses):
            while window and now_s - window[0][0] > FORGET_S:
                window.popleft()
        ratios = [ratio for _, ratio in self._ratios]
        if len(ratios) < FAST_WINDOW:
            self.factor = 1.0
        else:
            fast = sorted(ratios[-FAST_WINDOW:])[FAST_RANK]
            self.factor = max(fast, quantile(sorted(ratios), 0.5), FLOOR)
        excesses = sorted(excess for _, excess in self._excesses)
        self.excess_ms = quantile(excesses, self._attainment) if len(excesses) >= SLOW_WINDOW else None
