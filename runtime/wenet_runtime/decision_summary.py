"""What many decisions show together: counts, how far predictions were off, how often their bounds held."""

import math
from collections import Counter
from typing import Any, Dict, List, Optional, Tuple

from wenet_runtime.decision import Decision


class Summary:
    """Counts of decisions and how far predictions were from what was measured."""

    def __init__(self) -> None:
        self.decisions = 0
        self._outcomes: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._modes: Counter[str] = Counter()
        self._passed_over: Counter[str] = Counter()
        self._errors: List[float] = []
        self._within: List[bool] = []
        self._attainments: List[float] = []

    def add(self, one: Decision) -> None:
        """Count one."""
        self.decisions += 1
        self._outcomes[one.outcome] += 1
        self._reasons[one.reason] += 1
        if one.mode_id is not None:
            self._modes[one.mode_id] += 1
        if one.passed_over is not None:
            self._passed_over[one.passed_over[1]] += 1
        if one.mode_id is None or one.measured_ms is None:
            return
        if one.median_ms is not None and one.median_ms > 0:
            self._errors.append(abs(one.measured_ms / one.median_ms - 1))
        if one.bound_ms is not None and one.attainment is not None:
            self._within.append(one.measured_ms <= one.bound_ms)
            self._attainments.append(one.attainment)

    def members(self) -> Dict[str, Any]:
        """The summary as JSON members; what nothing tells is None."""
        measured = len(self._within)
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
                "within_bound": sum(self._within) / measured if measured else None,
                "attainment": sum(self._attainments) / measured if measured else None,
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
            found.append(f"prediction error: {median:.1%} (median), {p95:.1%} (95th percentile)")
        if self._within:
            measured, within = len(self._within), sum(self._within)
            asked = sum(self._attainments) / measured
            found.append(f"within the bound: {within} of {measured} ({within / measured:.2%}); asked for: {asked:.2%}")
        return found


def _counts(counts: "Counter[str]") -> str:
    return ", ".join(f"{name} {count}" for name, count in _by_count(counts))


def _by_count(counts: "Counter[str]") -> List[Tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _quantile(values: List[float], share: float) -> Optional[float]:
    """The smallest of the values that `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None
