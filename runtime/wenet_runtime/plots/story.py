"""What pictures are drawn from: requests, readings and modes, wherever they were written down."""

from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

WITHIN = "answered"  # within its budget, or without one
LATE = "late"
REFUSED = "refused"
EXPIRED = "expired"
FAILED = "failed"
OUTCOMES = (WITHIN, LATE, REFUSED, EXPIRED, FAILED)
SIMULATED = "sim"
MOST_BINS = 60

_WIDTHS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)


@dataclass(frozen=True)
class Event:
    """One request. What is unknown is None.

    Attributes:
        at_s: when it was due, or decided, from the start of the picture.
        outcome: one of `OUTCOMES`.
        mode: that ran.
        latency_ms: end to end; of an answered or late one.
        budget_ms: its whole budget.
        predicted_ms, measured_ms: of the same stretch of time.
        energy_mj: measured per row.
        rows: that ran together.
    """

    at_s: float
    outcome: str
    mode: Optional[str] = None
    latency_ms: Optional[float] = None
    budget_ms: Optional[float] = None
    predicted_ms: Optional[float] = None
    measured_ms: Optional[float] = None
    energy_mj: Optional[float] = None
    rows: Optional[int] = None


@dataclass(frozen=True)
class Gauge:
    """Power and heat at one instant: watts by rail, degrees by zone."""

    at_s: float
    power_w: Mapping[str, float]
    temperature_c: Mapping[str, float]


@dataclass(frozen=True)
class Point:
    """A mode and what it costs: accuracy 0-1, milliseconds, millijoules per row."""

    id: str
    accuracy: float
    p50_ms: Optional[float] = None
    p95_ms: Optional[float] = None
    energy_mj: Optional[float] = None
    energy_source: str = "none"
    batch_ms: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Story:
    """All that is known.

    Attributes:
        events: of a load, or of a server's decisions, by time.
        decisions: the server's own, where its log was read; they know what ran together.
        decided: when a mode began to answer, (seconds, mode), for the colours of the power trace.
        gauges: by time.
        source: of the watts.
        modes: most accurate first.
        notes: what stands below every picture: the model, and what of it is made up.
    """

    events: Sequence[Event] = ()
    decisions: Sequence[Event] = ()
    decided: Sequence[Tuple[float, str]] = ()
    gauges: Sequence[Gauge] = ()
    source: Optional[str] = None
    modes: Sequence[Point] = ()
    notes: Sequence[str] = ()

    @property
    def mode_ids(self) -> List[str]:
        """Every mode that is known or answered, most accurate first, then those of unknown accuracy by name."""
        known = [one.id for one in sorted(self.modes, key=lambda one: (-one.accuracy, one.id))]
        met = {one.mode for one in self.events if one.mode is not None} | {mode for _, mode in self.decided}
        return known + sorted(met - set(known))


def binned(events: Sequence[Event]) -> Tuple[float, Dict[int, List[Event]]]:
    """Events in slots of one width: (seconds of a slot, events by slot number); at most `MOST_BINS` slots."""
    if not events:
        return 1.0, {}
    first, last = min(one.at_s for one in events), max(one.at_s for one in events)
    width_s = next((one for one in _WIDTHS_S if (last - first) / one < MOST_BINS - 1), (last - first) / (MOST_BINS - 2))
    found: Dict[int, List[Event]] = {}
    for one in events:
        found.setdefault(int(one.at_s // width_s), []).append(one)
    return width_s, found
