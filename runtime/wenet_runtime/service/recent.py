"""What happened in the last minute: latencies, hits and energy as measured, per mode, for the page that people watch.

Prometheus keeps history and this does not: it is a bounded ring, and what it forgets it says.
"""

import math
import threading
import time
from collections import Counter, deque
from typing import Any, Callable, Deque, Dict, Iterable, List, NamedTuple, Optional, Tuple

from wenet_runtime.result import Result

WINDOW_S = 60.0
KEPT = 4096  # so many can be sorted in a millisecond; at more than 68 answers a second the window is shorter
LATEST = 120


class Answer(NamedTuple):
    """One answered request: when (monotonic), by which mode, and what was predicted and measured."""

    at_s: float
    mode_id: str
    latency_ms: float
    predicted_ms: float
    met: Optional[bool]
    energy_mj: Optional[float]


class Recent:
    """The answers and failures of the last minute. Any thread may write and read.

    Args:
        clock: the monotonic clock.
        kept: how many of either are kept at most.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept: int = KEPT) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: Deque[Answer] = deque(maxlen=kept)
        self._failures: Deque[Tuple[float, str]] = deque(maxlen=kept)

    def answered(self, result: Result, *, latency_ms: float, met: Optional[bool]) -> None:
        """Note one executed request; `met` is None if it had no budget."""
        one = Answer(self._clock(), result.mode_id, latency_ms, result.predicted_ms, met, result.energy_mj)
        with self._lock:
            self._answers.append(one)

    def failed(self, slug: str) -> None:
        """Note one request that got a problem instead of an answer."""
        one = (self._clock(), slug)
        with self._lock:
            self._failures.append(one)

    def members(self) -> Dict[str, Any]:
        """The last minute as JSON members; what nothing tells is None."""
        with self._lock:  # copied, because a deque must not grow while it is read
            answers, failures = list(self._answers), list(self._failures)
        now_s = self._clock()
        full = len(answers) == self._answers.maxlen
        begins_s = now_s - WINDOW_S
        answers = [one for one in answers if one.at_s >= begins_s]
        full = full and len(answers) == self._answers.maxlen
        by_mode: Dict[str, List[Answer]] = {}
        for one in answers:
            by_mode.setdefault(one.mode_id, []).append(one)
        return {
            "window_s": round(now_s - answers[0].at_s, 1) if full else WINDOW_S,
            **_summary(answers),
            "failed": dict(Counter(slug for at_s, slug in failures if at_s >= begins_s)),
            "modes": {mode_id: {**_summary(its), **_means(its)} for mode_id, its in by_mode.items()},
            "latest": [
                {
                    "age_s": round(now_s - one.at_s, 2),
                    "mode": one.mode_id,
                    "latency_ms": round(one.latency_ms, 3),
                    "met": one.met,
                }
                for one in answers[-LATEST:]
            ],
        }


def _summary(answers: List[Answer]) -> Dict[str, Any]:
    latencies = sorted(one.latency_ms for one in answers)
    budgets = [one.met for one in answers if one.met is not None]
    return {
        "answers": len(answers),
        "with_budget": len(budgets),
        "hit_rate": round(sum(budgets) / len(budgets), 4) if budgets else None,
        "latency_ms": {
            name: _quantile(latencies, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
    }


def _means(answers: List[Answer]) -> Dict[str, Any]:
    predicted = sorted(one.predicted_ms for one in answers if math.isfinite(one.predicted_ms))
    return {"predicted_ms": _quantile(predicted, 0.5), "energy_mj": _mean(one.energy_mj for one in answers)}


def _mean(values: Iterable[Optional[float]]) -> Optional[float]:
    known = [one for one in values if one is not None and 0.0 <= one < math.inf]  # a meter may be broken
    return round(sum(known) / len(known), 4) if known else None


def _quantile(ascending: List[float], share: float) -> Optional[float]:
    """The smallest of the values that `share` of them do not exceed."""
    return round(ascending[max(0, math.ceil(share * len(ascending)) - 1)], 4) if ascending else None
