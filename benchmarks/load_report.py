"""What a load's answers say: attainment, goodput, accuracy, and how far the generator itself was late."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.open_loop import Answer

OK = 200
REFUSALS = frozenset((422, 503))  # said at once, before anything ran
ALLOWED = frozenset((200, 503, 504))  # what a daemon under too much load may say


@dataclass(frozen=True)
class Report:
    """One load in figures.

    Attributes:
        arrivals: requests that were due.
        attainment: answered within the budget, of all arrivals; a refusal is a miss.
        accepted_within: answered within the budget, of what was accepted: everything but refusals, so that a request
            that was taken and then expired (504) counts as a miss.
        goodput: answered within the budget, per second.
        accuracy: mean recorded accuracy of what was answered within the budget; 0 if nothing was.
        statuses: arrivals by status; 0 is no answer.
        modes: 200s by mode.
        reasons: 200s by reason, the others by slug.
        late_ms: of the generator: median, 99th percentile, largest.
        late_share: requests that the generator began to send more than 1 ms late.
        missed_by_generator: 200s over the budget that would have been within it without the generator's lateness.
        outside_ms: what neither the generator's lateness nor the daemon's own latency explains: the network, the
            daemon's delay before it reads, the generator's before it does; median, 99th percentile, largest.
        predicted_error_ms: the daemon's own latency − predicted, of what was answered: median, 99th percentile.
    """

    arrivals: int
    attainment: float
    accepted_within: float
    goodput: float
    accuracy: float
    statuses: Mapping[str, int]
    modes: Mapping[str, int]
    reasons: Mapping[str, int]
    late_ms: Sequence[float]
    late_share: float
    missed_by_generator: int
    outside_ms: Sequence[float]
    predicted_error_ms: Sequence[float]


def report(answers: Sequence[Answer], *, budget_ms: float, seconds: float, accuracies: Mapping[str, float]) -> Report:
    """Sum up.

    Args:
        answers: all arrivals of one way, of however many runs.
        budget_ms: what every request was given, from the instant it was due.
        seconds: how long arrivals went on, all runs together.
        accuracies: by mode id.
    """
    accepted = [one for one in answers if one.status not in REFUSALS]
    good = [one for one in answers if one.status == OK]
    within = [one for one in good if one.latency_ms <= budget_ms]
    excused = [one for one in good if budget_ms < one.latency_ms <= budget_ms + one.late_ms]
    outside = [one.latency_ms - one.late_ms - one.served_ms for one in answers if one.served_ms is not None]
    errors = [
        one.served_ms - one.predicted_ms for one in good if one.served_ms is not None and one.predicted_ms is not None
    ]
    return Report(
        arrivals=len(answers),
        attainment=len(within) / max(1, len(answers)),
        accepted_within=len(within) / max(1, len(accepted)),
        goodput=len(within) / seconds,
        accuracy=float(np.mean([accuracies[one.mode] for one in within if one.mode])) if within else 0.0,
        statuses=_counts([str(one.status) for one in answers]),
        modes=_counts([one.mode for one in good]),
        reasons=_counts([one.reason if one.status == OK else one.problem for one in answers]),
        late_ms=_percentiles([one.late_ms for one in answers], 50, 99, 100),
        late_share=float(np.mean([one.late_ms > 1 for one in answers])) if answers else 0.0,
        missed_by_generator=len(excused),
        outside_ms=_percentiles(outside, 50, 99, 100),
        predicted_error_ms=_percentiles(errors, 50, 99),
    )


def only_allowed(answers: Sequence[Answer]) -> bool:
    """Whether every arrival was answered, and with nothing but 200, 503 and 504."""
    return all(one.status in ALLOWED for one in answers)


def by_second(answers: Sequence[Answer], *, budget_ms: float) -> list[list[float]]:
    """One row a second, by when requests were due: [second, arrivals, 200s, within budget, median ms, p99 ms of 200s].

    Seconds without arrivals are left out; without a 200 the latencies are 0.
    """
    rows: list[list[float]] = []
    for second in sorted({int(one.at_s) for one in answers}):
        due = [one for one in answers if int(one.at_s) == second]
        taken = [one.latency_ms for one in due if one.status == OK]
        within = sum(ms <= budget_ms for ms in taken)
        rows.append([second, len(due), len(taken), within, *(_percentiles(taken, 50, 99) or [0.0, 0.0])])
    return rows


def _counts(names: Sequence[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(name or "none" for name in names).items()))


def _percentiles(values: Sequence[float], *shares: float) -> list[float]:
    return [round(float(one), 3) for one in np.percentile(values, shares)] if len(values) else []
