"""What many decisions show together: counts, how far predictions were off, how often their bounds held."""

import math
from collections import Counter, deque
from typing import Any, Deque, Dict, Iterable, List, Optional, Tuple

from wenet_runtime.decision import Decision

KEPT = 100_000  # how many are kept one by one: a log may be of any length
NAMES = 1000  # counted by name; a log that somebody made up may have a new one in every line
OTHERS = "(others)"


class Summary:
    """Counts of decisions and how far predictions were from what was measured.

    Args:
        kept: over how many of the latest the error's quantiles are taken.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.decisions = 0
        self._outcomes: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._modes: Counter[str] = Counter()
        self._passed_over: Counter[str] = Counter()
        self._errors: Deque[float] = deque(maxlen=kept)
        self._measured = self._within = 0
        self._attainments = 0.0

    def add(self, one: Decision) -> None:
        """Count one."""
        self.decisions += 1
        _count(self._outcomes, one.outcome)
        _count(self._reasons, one.reason)
        if one.passed_over is not None:
            _count(self._passed_over, one.passed_over[1])
        if one.mode_id is None:
            return
        _count(self._modes, one.mode_id)
        if one.measured_ms is None:
            return
        if one.median_ms is not None and one.median_ms > 0:
            error = abs(one.measured_ms / one.median_ms - 1)
            if math.isfinite(error):  # a made-up line's need not be
                self._errors.append(error)
        if one.bound_ms is not None and one.attainment is not None and 0 <= one.attainment <= 1:
            self._measured += 1
            self._within += one.measured_ms <= one.bound_ms
            self._attainments += one.attainment

    def members(self) -> Dict[str, Any]:
        """The summary as JSON members; what nothing tells is None."""
        measured = self._measured
        return {
            "decisions": self.decisions,
            "outcomes": dict(self._outcomes.most_common()),
            "reasons": dict(self._reasons.most_common()),
            "modes": dict(self._modes.most_common()),
            "passed_over": dict(self._passed_over.most_common()),
            "prediction_error": {
                "count": len(self._errors),
                "median": _quantile(self._errors, 0.5),
                "p95": _quantile(self._errors, 0.95),
            },
            "coverage": {
                "count": measured,
                "within_bound": self._within / measured if measured else None,
                "attainment": self._attainments / measured if measured else None,
            },
        }

    def lines(self) -> List[str]:
        """The summary in plain words."""
        found = [f"{self.decisions} decisions" + (f": {_counts(self._outcomes)}" if self.decisions else "")]
        for name, counts in (("reasons", self._reasons), ("modes", self._modes), ("passed over", self._passed_over)):
            if counts:
                found.append(f"{name}: {_counts(counts)}")
        if self._errors:
            median, p95 = _quantile(self._errors, 0.5), _quantile(self._errors, 0.95)
            latest = f" of the latest {len(self._errors)}" if len(self._errors) == self._errors.maxlen else ""
            found.append(f"prediction error{latest}: {median:.1%} (median), {p95:.1%} (95th percentile)")
        if self._measured:
            within, measured = self._within, self._measured
            asked = self._attainments / measured
            found.append(f"within the bound: {within} of {measured} ({within / measured:.2%}); asked for: {asked:.2%}")
        return found


def _count(counts: "Counter[str]", name: str) -> None:
    counts[name if name in counts or len(counts) < NAMES else OTHERS] += 1


def _counts(counts: "Counter[str]") -> str:
    return ", ".join(f"{name} {count}" for name, count in _by_count(counts))


def _by_count(counts: "Counter[str]") -> List[Tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _quantile(values: Iterable[float], share: float) -> Optional[float]:
    """The smallest of the values that `share` of them do not exceed."""
    ascending = sorted(values)
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)] if ascending else None
