"""How long the engine may be busy so that requests which are not here yet still meet their deadlines.

It watches a queue that does not exist: the same arrivals, each served by the fastest mode at once. What is left of a
request's budget after that queue is what a longer run in front of it may take. Bursts, ramps and quiet hours are
all in it, and nothing is assumed about how arrivals are distributed. How cautious it is follows from what happens:
every miss makes it more cautious, every answer in time less, in the ratio that was asked for.
"""

import math

from wenet_runtime.residuals import Residuals

SIZE = 2048  # arrivals that are remembered
LEAST = 15  # fewer say nothing
# A miss moves the share of arrivals that may find too little room by this much, so a few in a row end all risk.
STEP = 0.05
# Beyond the lower end the fastest mode runs alone; a quiet time does not carry it beyond the upper one.
LOWEST, HIGHEST = -0.05, 0.5


class Reserve:
    """Slack of recent arrivals behind the fastest mode.

    Args:
        attainment: the share of arrivals that shall be answered in time.

    Attributes:
        slack_ms: what the engine may take for all that is before it now and the next run; infinite while too little
            is known.
    """

    def __init__(self, attainment: float) -> None:
        self._miss = 1.0 - attainment
        self._share = self._miss
        self._slacks = Residuals(SIZE)
        self._work_ms = 0.0
        self._at_s = -math.inf
        self.slack_ms = math.inf

    def arrived(self, left_ms: float, fastest_ms: float, now_s: float) -> None:
        """Take in an arrival: the time left to it, and what the fastest mode it accepts takes."""
        passed_ms = (now_s - self._at_s) * 1e3
        waiting_ms = max(0.0, self._work_ms - passed_ms) if passed_ms >= 0 else self._work_ms
        self._at_s = now_s
        slack_ms = left_ms - waiting_ms - fastest_ms
        # What even the fastest mode could not have served is refused, so it takes no time.
        self._work_ms = waiting_ms + (fastest_ms if slack_ms >= 0 else 0.0)
        if math.isfinite(slack_ms):
            self._slacks.add(max(0.0, slack_ms))
            if len(self._slacks) >= LEAST:
                self.slack_ms = self._slacks.quantile(self._share) if self._share >= 0 else 0.0

    def answered(self, in_time: bool) -> None:
        """Take in how a request ended; one that is refused for want of time is not in time.

        In the long run the share of misses is the one asked for, whatever the arrivals are like: an integral
        controller of the quantile, as adaptive conformal inference has it (Gibbs & Candès, 2021).
        """
        moved = self._share + STEP * (self._miss - (0.0 if in_time else 1.0))
        self._share = min(HIGHEST, max(LOWEST, moved))
