"""What a load's answers say: latency, budgets met, modes, accuracy, energy, and how far the sender itself was late."""

from collections import Counter
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from wenet_runtime.client.load import NO_ANSWER, Answer

OK = 200


def summary(
    answers: Sequence[Answer],
    *,
    budgets_ms: Sequence[Optional[float]],
    seconds: float,
    accuracies: Mapping[str, float],
) -> Dict[str, Any]:
    """Sum up.

    Args:
        answers: all arrivals that count.
        budgets_ms: by `Answer.kind`; None for a request without one.
        seconds: how long they went on arriving.
        accuracies: by mode id, as recorded in the bundle.

    Returns:
        JSON members; what is unknown is None. A request without an answer within its budget is a miss, whether it
        was refused, expired or late; those without a budget have no share in `within_budget`.
    """
    good = [one for one in answers if one.status == OK]
    asked = [one for one in answers if budgets_ms[one.kind] is not None]
    known = [accuracies[one.mode] for one in good if one.mode is not None and one.mode in accuracies]
    joules = [one.energy_mj for one in good if one.energy_mj is not None]
    sources = sorted({one.energy_source for one in good if one.energy_mj is not None and one.energy_source})
    return {
        "arrivals": len(answers),
        "answered": len(good),
        "answered_per_s": round(len(good) / seconds, 3),
        "latency_ms": percentiles([one.latency_ms for one in good]),
        "server_latency_ms": percentiles([one.served_ms for one in good if one.served_ms is not None]),
        "within_budget": _share(sum(within(one, budgets_ms[one.kind]) for one in asked), len(asked)),
        "statuses": _counts([str(one.status) if one.status != NO_ANSWER else "no answer" for one in answers]),
        "problems": _counts([one.problem for one in answers if one.problem]),
        "modes": _counts([one.mode for one in good if one.mode]),
        "reasons": _counts([one.reason for one in good if one.reason]),
        "expected_accuracy": round(float(np.mean(known)), 6) if known else None,
        "energy_mj": round(float(np.mean(joules)), 4) if joules else None,
        "energy_sources": sources,
        "sent_late_ms": percentiles([one.late_ms for one in answers]),
        "by_budget": [
            {
                "budget_ms": budget_ms,
                "arrivals": len(of),
                "within_budget": _share(sum(within(one, budget_ms) for one in of), len(of)),
                "latency_ms": percentiles([one.latency_ms for one in of if one.status == OK]),
                "modes": _counts([one.mode for one in of if one.status == OK and one.mode]),
            }
            for budget_ms in sorted({one for one in budgets_ms if one is not None})
            for of in [[one for one in answers if budgets_ms[one.kind] == budget_ms]]
        ],
    }


def within(answer: Answer, budget_ms: Optional[float]) -> bool:
    """Whether a request was answered within its budget, counted from when it was due."""
    return answer.status == OK and budget_ms is not None and answer.latency_ms <= budget_ms


def percentiles(values: Sequence[float]) -> Optional[Dict[str, float]]:
    """Half, 95 % and 99 % of them are at most this, and the largest; None of nothing."""
    if not values:
        return None
    found = np.percentile(np.asarray(values, dtype=float), (50, 95, 99, 100))
    return {name: round(float(one), 3) for name, one in zip(("p50", "p95", "p99", "max"), found)}


def _share(part: int, whole: int) -> Optional[float]:
    return round(part / whole, 6) if whole else None


def _counts(names: Sequence[str]) -> Dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda one: (-one[1], one[0])))


def lines(found: Mapping[str, Any]) -> List[str]:
    """A summary for a person."""
    told = [
        f"{found['arrivals']} requests, {found['answered']} answered ({found['answered_per_s']:g} a second)",
        f"latency from when each was due: {_told(found['latency_ms'])}",
        f"latency as the server measured:  {_told(found['server_latency_ms'])}",
    ]
    if found["within_budget"] is not None:
        told.append(f"within budget: {found['within_budget']:.2%} of all that had one")
    if len(found["by_budget"]) > 1:
        told += [
            f"  {one['budget_ms']:g} ms: {one['within_budget']:.2%} of {one['arrivals']}, {_told(one['latency_ms'])}"
            for one in found["by_budget"]
        ]
    told.append(f"statuses: {_listed(found['statuses'], found['arrivals'])}")
    if found["problems"]:
        told.append(f"problems: {_listed(found['problems'], found['arrivals'])}")
    if found["modes"]:
        told.append(f"modes: {_listed(found['modes'], found['answered'])}")
    if found["expected_accuracy"] is not None:
        told.append(f"accuracy expected of these modes: {found['expected_accuracy']:.2%}")
    if found["energy_mj"] is not None:
        told.append(f"energy: {found['energy_mj']:.4g} mJ an image by {', '.join(found['energy_sources'])}")
    else:
        told.append("energy: unknown")
    late = found["sent_late_ms"]
    if late is not None:
        told.append(f"sent late: median {late['p50']:.3g} ms, 99 % at most {late['p99']:.3g} ms (part of the latency)")
    return told


def _told(found: Optional[Mapping[str, float]]) -> str:
    if found is None:
        return "none"
    return ", ".join(f"{name} {value:.4g}" for name, value in found.items()) + " ms"


def _listed(counts: Mapping[str, int], whole: int) -> str:
    return ", ".join(f"{name} {count} ({count / whole:.1%})" for name, count in counts.items())
