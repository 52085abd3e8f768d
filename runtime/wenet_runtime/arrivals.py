"""The traffic as it was seen lately: gaps, budgets, how many were present at a time, and how many were missed."""

import math
from collections import Counter, deque
from typing import Counter as Counts
from typing import Deque, Optional

from wenet_runtime.backlog_value import Traffic
from wenet_runtime.forecast import Forecast

MEMORY = 2048  # arrivals that are remembered
LEAST = 32  # fewer say nothing
EVERY = 256  # arrivals between plannings
MOVED = 0.1  # modes that take so much more or less than planned with are planned anew
# A miss makes an answer worth so much more (e to the power), and the share of answers asked for undoes it.
STEP = 0.3
WATCHED = 256  # arrivals of which it is remembered how many waited or ran with them
# Where so many arrivals come upon as many as there ever are, the same few clients send again once answered.
RETURNING = 0.25


class Arrivals:
    """Watches requests come and end. Clocks are passed in.

    Args:
        attainment: the share of them that shall be answered in time.

    Attributes:
        answer: what an answer in time is worth beside its accuracy: follows from how many are missed.
    """

    def __init__(self, attainment: float) -> None:
        self._miss = 1.0 - attainment
        self._most = 1.0 / self._miss
        self.answer = math.sqrt(self._most)  # until misses, or none, tell
        self._gaps: Deque[float] = deque(maxlen=MEMORY)
        self._budgets: Deque[float] = deque(maxlen=MEMORY)
        self._last_s: Optional[float] = None
        self._since = 0
        self._present: Deque[Optional[int]] = deque()
        self._counts: Counts[int] = Counter()
        self._planned: Optional[Forecast] = None

    def came(self, left_ms: float, present: Optional[int], now_s: float) -> None:
        """A request came with so much time left; so many wait or run with it, None where it found no place."""
        if self._last_s is not None and now_s >= self._last_s:
            self._gaps.append((now_s - self._last_s) * 1e3)
        self._last_s = now_s
        if math.isfinite(left_ms):
            self._budgets.append(max(0.0, left_ms))
        self._since += 1
        self._present.append(present)
        if present is not None:  # a full queue is as full each time, whoever comes upon it
            self._counts[present] += 1
        gone = self._present.popleft() if len(self._present) > WATCHED else None
        if gone is not None:
            self._counts[gone] -= 1
            if not self._counts[gone]:
                del self._counts[gone]

    def ended(self, in_time: bool) -> None:
        """One was answered in time, or was not."""
        moved = STEP * (-self._miss if in_time else 1.0 - self._miss)
        self.answer = min(self._most, max(1.0, self.answer * math.exp(moved)))

    def age_ms(self, now_s: float) -> float:
        """Time since the last one came."""
        return 0.0 if self._last_s is None else max(0.0, now_s - self._last_s) * 1e3

    @property
    def returning(self) -> bool:
        """Whether they come from a few clients that wait for their answer before they send again.

        Then how many come depends on how long an answer takes, and gaps say nothing about what would be if it took
        longer.
        """
        return bool(self._counts) and self._counts[max(self._counts)] >= RETURNING * len(self._present)

    def traffic(self, forecast: Forecast) -> Optional[Traffic]:
        """What to plan with, if it is time to plan; it is not asked for again for a while then."""
        if len(self._gaps) < LEAST or not self._budgets:
            return None
        if self._since < EVERY and self._planned is not None and not _moved(forecast, self._planned):
            return None
        self._since = 0
        self._planned = forecast
        reply_ms = forecast.reply_ms
        return Traffic(
            gaps_ms=tuple(self._gaps),
            budgets_ms=tuple(self._budgets),
            medians_ms=[max(1e-6, median_ms - reply_ms) for median_ms in forecast.medians_ms],
            bounds_ms=list(forecast.bounds_ms),
            accuracies=forecast.accuracies,
            answer=self.answer,
        )


def _moved(now: Forecast, then: Forecast) -> bool:
    """Whether any mode takes another time. They move by class, so the first and the last tell."""
    return any(
        abs(now.medians_ms[at] - then.medians_ms[at]) > MOVED * then.medians_ms[at] for at in {0, len(now.ids) - 1}
    )
