"""An open-loop load: when requests are due, and what became of each. A latency counts from when it was due."""

import json
from dataclasses import dataclass, replace
from typing import List, Mapping, Optional, Tuple

import numpy as np

NO_ANSWER = 0  # the status of a request whose connection broke, or that was not answered in time


def arrivals(rate: float, duration_s: float, *, cv2: float = 1.0, seed: int = 0) -> List[float]:
    """Seconds from the start, ascending, in [0, duration_s).

    Args:
        rate: mean arrivals per second.
        duration_s: how long they go on.
        cv2: squared coefficient of variation of the gaps: 1 is Poisson, more comes in bursts (gamma gaps).
        seed: of the draw.
    """
    if not (rate > 0 and duration_s > 0 and cv2 > 0):
        raise ValueError(f"rate {rate}, duration {duration_s} s and cv2 {cv2} must all be above 0")
    draw = np.random.default_rng(seed)
    times: List[float] = []
    now_s = 0.0
    while now_s < duration_s:
        gaps = draw.gamma(1 / cv2, cv2 / rate, 256)
        found = now_s + np.cumsum(gaps)
        times += [float(one) for one in found[found < duration_s]]
        now_s = float(found[-1])
    return times


def even_arrivals(rate: float, duration_s: float) -> List[float]:
    """The same without chance: one every 1 / rate seconds, from 0."""
    return [number / rate for number in range(int(np.ceil(round(rate * duration_s, 6))))]


@dataclass(frozen=True)
class Answer:
    """One request's fate. Milliseconds; what a reply does not say is None.

    Attributes:
        at_s: when it was due, from the start.
        late_ms: how long after that the sender began to send it.
        latency_ms: from when it was due to the last byte of its reply, or to giving up.
        status: of HTTP, or `NO_ANSWER`.
        served_ms: the server's own latency (`WeNet-Latency-Ms`).
        problem: the slug of a refusal.
        energy_mj: as attributed to one row, with where that is from.
        kind: which of the requests it was.
    """

    at_s: float
    late_ms: float
    latency_ms: float
    status: int
    mode: Optional[str] = None
    reason: Optional[str] = None
    predicted_ms: Optional[float] = None
    served_ms: Optional[float] = None
    met: Optional[bool] = None
    problem: Optional[str] = None
    energy_mj: Optional[float] = None
    energy_source: Optional[str] = None
    kind: int = 0


@dataclass(frozen=True)
class Run:
    """What a sender saw.

    Attributes:
        start_s: monotonic, what `Answer.at_s` counts from.
        answers: by the time they were due.
        cpu_ms: the sender's own processor time per request; of its whole process.
        opened: connections opened after the start, because all were in use or one was closed.
        interrupted_s: when Ctrl-C ended it, from the start; what was under way then is not among the answers.
    """

    start_s: float
    answers: Tuple[Answer, ...]
    cpu_ms: float
    opened: int
    interrupted_s: Optional[float] = None


def answered(sent: Answer, latency_ms: float, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """What became of a request that was sent.

    Args:
        sent: as it was noted when it was.
        latency_ms: from when it was due to the last byte of the reply.
        status: the reply's.
        headers: the reply's, by lower-case name.
        body: the reply's.
    """
    met = headers.get("wenet-budget-met")
    return replace(
        sent,
        latency_ms=latency_ms,
        status=status,
        mode=headers.get("wenet-mode"),
        reason=headers.get("wenet-mode-reason"),
        predicted_ms=_number(headers.get("wenet-predicted-ms")),
        served_ms=_number(headers.get("wenet-latency-ms")),
        met=None if met is None else met == "true",
        problem=_slug(body) if status != 200 and body else None,
        energy_mj=_number(headers.get("wenet-energy-mj")),
        energy_source=headers.get("wenet-energy-source"),
    )


def _number(text: Optional[str]) -> Optional[float]:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _slug(body: bytes) -> Optional[str]:
    try:
        kind = json.loads(body.decode()).get("type", "")
    except (ValueError, AttributeError):
        return None
    return str(kind).rsplit(":", 1)[-1] or None
