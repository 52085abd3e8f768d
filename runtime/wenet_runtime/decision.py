"""One decision: what was asked, what was chosen and why, what was predicted and measured; and its line of JSON."""

import json
import math
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

ANSWERED = "answered"
LATE = "late"
EXPIRED = "expired"
REFUSED = "refused"
OUTCOMES = (ANSWERED, LATE, EXPIRED, REFUSED)
# Why a mode answered (HTTP API, section 6), why another was passed over, and what a choice was bound by.
REASONS = ("fits", "degraded", "pinned", "energy", "thermal", "only-mode", "cascade", "guard")
PASSED_OVER = ("too-slow", "too-dear", "over-power", "no-room", "not-worth", "not-resident")
LIMITS = ("budget_ms", "budget_mj", "min_accuracy", "mode", "deadline", "power_w")
VERSION = 1
MAX_TEXT = 256


class Passed(NamedTuple):
    """A mode that was not taken, and why.

    Attributes:
        mode_id: the next more accurate allowed mode; of a refused request, the fastest allowed one.
        why: one of `PASSED_OVER`.
        value: what it would have taken. From the decision on, ms, at most; of `too-dear` and `over-power`, mJ per row;
            of `not-worth`, the accuracy gained (0-1). Of a refused request, ms from its start to its end, in the
            median. None when unknown.
        limit: what there was of that; of `not-worth`, the accuracy that later requests would lose; of a refused
            request, its whole budget, ms.
    """

    mode_id: str
    why: str
    value: Optional[float] = None
    limit: Optional[float] = None


class Decision(NamedTuple):
    """What happened to one request. A tuple, because one is made for every request.

    Attributes:
        number: counts the decisions of one daemon, from 0.
        time_s: wall clock of the decision, seconds since 1970.
        request_id: as the client gave it or the server made it.
        rows: of the request's batch.
        queued: how many requests waited when it was decided, this one included.
        outcome: `answered`, `late` (it ran, and ended after its budget, whether the client got the answer or, under
            `reject`, an error), `expired` (while it waited), `refused`.
        reason: why this mode (HTTP API, section 6), or the problem's slug (section 7) if none ran.
        mode_id: the mode that ran; None if none did.
        budget_ms: the whole effective budget; None without one.
        left_ms: what was left of it at the decision.
        limits: what bound the choice, of `LIMITS`; `deadline` is a protocol's.
        median_ms, bound_ms: predicted from the decision to the end of what `measured_ms` measures: half of such
            requests finish by the first, the share `attainment` by the second.
        measured_ms: from the same decision.
        attainment: the probability that was asked for.
        energy_mj: predicted per row.
        measured_mj, energy_source: per row as attributed afterwards, and where that is from.
        slowdown: factor by which the mode's class was slower than profiled.
        cap_mj: the most energy above idle that a row might take; None if nothing capped it.
        passed_over: the next better mode and why it was not taken, as in `Passed`; None if there was none.
        first: the cheap mode of a cascade that was tried first; it answered if it is `mode_id` too.
        batch_rows: rows that ran together, those of other requests included; None if nothing ran.
    """

    number: int
    time_s: float
    request_id: str
    rows: int
    queued: int
    outcome: str
    reason: str
    mode_id: Optional[str] = None
    budget_ms: Optional[float] = None
    left_ms: Optional[float] = None
    limits: Tuple[str, ...] = ()
    median_ms: Optional[float] = None
    bound_ms: Optional[float] = None
    measured_ms: Optional[float] = None
    attainment: Optional[float] = None
    energy_mj: Optional[float] = None
    measured_mj: Optional[float] = None
    energy_source: str = "none"
    slowdown: Optional[float] = None
    cap_mj: Optional[float] = None
    passed_over: Optional[Tuple[str, str, Optional[float], Optional[float]]] = None
    first: Optional[str] = None
    batch_rows: Optional[int] = None

    @property
    def missed(self) -> bool:
        """Whether the request got no answer within its budget."""
        return self.outcome != ANSWERED


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def members_of(decision: Decision) -> Dict[str, Any]:
    """A decision as JSON members. What is not finite is unknown, and 0.1 µs is as fine as any of it is."""
    return {name: _plain(value) for name, value in zip(Decision._fields, decision)}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(float(value), 4) if math.isfinite(value) else None
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def line_of(decision: Decision) -> bytes:
    """A decision as one line, its end included. Raises `TypeError` or `ValueError` for a value JSON has not."""
    return _encode({"v": VERSION, **members_of(decision)}).encode() + b"\n"


def decision_of(line: bytes) -> Decision:
    """The decision in a line.

    Raises:
        ValueError: says what the line lacks, or has too much.
    """
    try:
        members = json.loads(line.decode(), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except ValueError:  # JSONDecodeError and UnicodeDecodeError are
        raise ValueError("is no JSON") from None
    if not isinstance(members, dict):
        raise ValueError("is no JSON object")
    version = members.pop("v", None)
    if version != VERSION:
        raise ValueError(f"has version {_shown(version)}, and {VERSION} can be read here")
    return Decision(**_checked(members))


def _checked(members: Mapping[str, Any]) -> Dict[str, Any]:
    """The members in the order of `Decision`, each of its type."""
    for name in members:
        if name not in _CHECKS:
            raise ValueError(f"has an unknown member {_shown(name)}")
    found = {}
    for name, check in _CHECKS.items():
        if name not in members:
            raise ValueError(f"has no '{name}'")
        try:
            found[name] = check(members[name])
        except (ValueError, OverflowError):
            raise ValueError(f"has the impossible {name} {_shown(members[name])}") from None
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _shown(value: Any) -> str:
    return ascii(value)[:60]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _text(value: Any) -> str:
    # What cannot be printed could drive the terminal of whoever reads the log.
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise ValueError
    return value


def _outcome(value: Any) -> str:
    if value not in OUTCOMES:
        raise ValueError
    return str(value)


def _maybe(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def _words(value: Any) -> "tuple[str, ...]":
    if not isinstance(value, list):
        raise ValueError
    return tuple(_text(one) for one in value)


def _passed(value: Any) -> Passed:
    if not isinstance(value, list) or len(value) != len(Passed._fields):
        raise ValueError
    mode_id, code, needed, had = value
    return Passed(_text(mode_id), _text(code), _maybe(_number)(needed), _maybe(_number)(had))


_CHECKS: Dict[str, Callable[[Any], Any]] = {
    "number": _count,
    "time_s": _number,
    "request_id": _text,
    "rows": _count,
    "queued": _count,
    "outcome": _outcome,
    "reason": _text,
    "mode_id": _maybe(_text),
    "budget_ms": _maybe(_number),
    "left_ms": _maybe(_number),
    "limits": _words,
    "median_ms": _maybe(_number),
    "bound_ms": _maybe(_number),
    "measured_ms": _maybe(_number),
    "attainment": _maybe(_number),
    "energy_mj": _maybe(_number),
    "measured_mj": _maybe(_number),
    "energy_source": _text,
    "slowdown": _maybe(_number),
    "cap_mj": _maybe(_number),
    "passed_over": _maybe(_passed),
    "first": _maybe(_text),
    "batch_rows": _maybe(_count),
}
