"""What one board took and may still take, whichever bundle's modes took it: one account for the daemon's whole life.

While one bundle takes the place of another the threads of both use it: whoever does holds its `lock`. Every call says
what time it is, and the clock goes on from the latest instant, so that time passes once whoever tells it.
"""

import threading
from collections import deque
from typing import Deque, Optional, Tuple

from wenet_runtime.battery import Battery
from wenet_runtime.steady_clock import ArrivalRate, SteadyClock

STEPS = 60  # plans per window
# Accuracy is concave over energy, so every needless move of the mix costs some: the rate is that of a whole window.
# On a ramp it lags by a window's worth of slope; what that misspends is in the credit, which is paid back sooner.
RATE_SHARE = 1.0
# What a quiet time left over may be spent later, but no window shall exceed its budget by a tenth for that.
CREDIT_SHARE = 0.04


class PowerAccount:
    """Time, rows, energy and credit of one board.

    Args:
        power_w: the average that it may take, idle watts included; of a battery, that of its whole time.
        window_s: over which it holds.
        idle_w: what the board takes when nothing runs.
        battery: what has to last; None for an average that always holds.
        start_s: the first instant; None: the first that is told.

    Attributes:
        lock: whoever uses the account holds it.
        power_w: the average from now on; of a battery, whoever plans sets it anew.
        credit_mj: what time allowed above idle, less what was spent; of a battery always 0.
    """

    def __init__(
        self,
        power_w: float,
        window_s: float,
        idle_w: float,
        battery: Optional[Battery] = None,
        start_s: Optional[float] = None,
    ) -> None:
        self.lock = threading.Lock()
        self.power_w = power_w
        self.battery = battery
        self.clock = SteadyClock(jump_s=window_s, start_s=start_s)
        self.rate = ArrivalRate(window_s * RATE_SHARE, window_s / STEPS)
        self.credit_mj = 0.0
        self._window_s = window_s
        self._idle_w = idle_w
        self._least_mj = -max(power_w - idle_w, 0.0) * window_s * 1e3  # bounds of the credit
        self._most_mj = CREDIT_SHARE * power_w * window_s * 1e3
        self._above_mj = 0.0  # spent in all, above idle
        self._past: Deque[Tuple[float, float]] = deque([(0.0, 0.0)], maxlen=2 * STEPS + 2)  # two bundles may plan

    @property
    def total_mj(self) -> float:
        """What the board took in all."""
        return self._above_mj + self._idle_w * self.clock.elapsed_s * 1e3

    @property
    def spent_w(self) -> Optional[float]:
        """The average of the last window; None before anything passed."""
        at_s, total_mj = self._past[0]
        passed_s = self.clock.elapsed_s - at_s
        return (self.total_mj - total_mj) / passed_s / 1e3 if passed_s > 0.0 else None

    def advance(self, now_s: float) -> None:
        """Let time pass until then."""
        step_s = self.clock.advance(now_s)
        if step_s > 0.0 and self.battery is None:
            credit = self.credit_mj + step_s * (self.power_w - self._idle_w) * 1e3
            least, most = self._least_mj, self._most_mj
            self.credit_mj = most if credit > most else credit if credit > least else least

    def charge(self, above_mj: float) -> None:
        """Take what a run took above idle, mJ."""
        self._above_mj += above_mj
        if self.battery is None:
            # A debt beyond what a window allows is written off: requests that did not make it would pay for it.
            credit = self.credit_mj - above_mj
            self.credit_mj = credit if credit > self._least_mj else self._least_mj

    def note(self) -> None:
        """Remember what was spent until now, for the average of the last window."""
        now_s = self.clock.elapsed_s
        self._past.append((now_s, self.total_mj))
        while len(self._past) > 1 and self._past[1][0] <= now_s - self._window_s:
            self._past.popleft()
