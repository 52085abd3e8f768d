"""Which mode answers: pure functions from predictions and a budget to a choice."""

import math
from dataclasses import dataclass, replace
from typing import Optional, Sequence

from wenet_runtime.errors import BudgetImpossible, InfeasibleBudget, NotResident, Refused


@dataclass(frozen=True)
class Candidate:
    """One allowed mode with what it is predicted to take from now until its reply is handed over.

    Attributes:
        accuracy: recorded validation accuracy, 0–1.
        median_ms: half of such requests finish by then.
        bound_ms: the share asked for (`--attainment`) finishes by then.
        idle_ms: the median on an idle, unthrottled device.
        energy_mj: per row; None when unknown.
        resident: whether it can answer at once.
    """

    mode_id: str
    accuracy: float
    median_ms: float
    bound_ms: float
    idle_ms: float
    energy_mj: Optional[float] = None
    resident: bool = True


@dataclass(frozen=True)
class Choice:
    """The mode that answers, why, and what it is predicted to take from now, ms.

    `wanted` is the mode that would have been chosen, had it been resident.
    """

    mode_id: str
    reason: str
    median_ms: float
    energy_mj: Optional[float]
    wanted: Optional[str] = None


@dataclass(frozen=True)
class Limits:
    """What applies to one decision.

    Attributes:
        left_ms: time until the effective deadline; infinity without one.
        limit_ms: the whole effective budget from the request's start, for the message and `idle_ms`.
        energy_mj: energy budget per row, or None.
        on_miss: `degrade`, `reject` or `late`.
        pinned: the request named its one mode.
    """

    left_ms: float = math.inf
    limit_ms: Optional[float] = None
    energy_mj: Optional[float] = None
    on_miss: str = "degrade"
    pinned: bool = False


def select(candidates: Sequence[Candidate], limits: Limits) -> Choice:
    """Choose among the allowed modes.

    The most accurate mode that is predicted to finish in time and meets the energy budget; ties go
    to the faster one. When none does, `on_miss` decides. Only resident modes answer; where another would
    have been chosen, the choice, or the refusal, says which is wanted.

    Args:
        candidates: the allowed modes: the accuracy floor and a pin are already applied. Not empty.
        limits: the time left and the budgets.

    Raises:
        BudgetImpossible: not even an idle device could meet it.
        InfeasibleBudget: possible, but not now.
        NotResident: possible, but none of the modes is resident.
    """
    best = _select(candidates, candidates, limits)
    resident = [one for one in candidates if one.resident]
    if any(one.mode_id == best.mode_id for one in resident):
        return best
    try:
        if not resident:
            raise NotResident(f"mode {best.mode_id} is being loaded and no other allowed mode is resident: send again")
        return replace(_select(resident, candidates, limits), wanted=best.mode_id)
    except Refused as refusal:
        refusal.wanted = best.mode_id
        raise


def _select(candidates: Sequence[Candidate], allowed: Sequence[Candidate], limits: Limits) -> Choice:
    """The choice among candidates, which are some of the allowed modes."""
    in_time = [one for one in candidates if one.bound_ms <= limits.left_ms]
    fitting = [one for one in in_time if _frugal(one, limits)]
    if fitting:
        best = max(fitting, key=_worth)
        return Choice(best.mode_id, _reason(best, allowed, in_time, limits), best.median_ms, best.energy_mj)
    fastest = min(candidates, key=lambda one: (one.median_ms, -one.accuracy))
    if limits.on_miss == "late" or (limits.on_miss == "degrade" and fastest.median_ms <= limits.left_ms):
        return Choice(fastest.mode_id, "degraded", fastest.median_ms, fastest.energy_mj)
    raise _refusal(candidates, fastest, limits)


def _worth(one: Candidate) -> "tuple[float, float]":
    return one.accuracy, -one.median_ms


def _frugal(one: Candidate, limits: Limits) -> bool:
    return limits.energy_mj is None or (one.energy_mj is not None and one.energy_mj <= limits.energy_mj)


def _reason(best: Candidate, allowed: Sequence[Candidate], in_time: Sequence[Candidate], limits: Limits) -> str:
    if limits.pinned:
        return "pinned"
    if len(allowed) == 1:
        return "only-mode"
    return "fits" if max(in_time, key=_worth) is best else "energy"


def _refusal(candidates: Sequence[Candidate], fastest: Candidate, limits: Limits) -> Exception:
    # Under `degrade` the energy budget may be exceeded, so only time can have refused.
    if limits.on_miss == "reject" and not any(_frugal(one, limits) for one in candidates):
        known = [one.energy_mj for one in candidates if one.energy_mj is not None]
        least = f"the least is {min(known):.3g} mJ" if known else "none is known"
        return BudgetImpossible(f"no allowed mode takes ≤ {limits.energy_mj or 0:g} mJ: {least}")
    limit = math.inf if limits.limit_ms is None else limits.limit_ms
    predicted = (limit - limits.left_ms) + fastest.median_ms
    idle = min(candidates, key=lambda one: one.idle_ms)
    if idle.idle_ms > limit:
        return BudgetImpossible(
            f"fastest allowed mode {idle.mode_id} takes {idle.idle_ms:.3g} ms on an idle device > budget {limit:g} ms",
            budget_ms=limits.limit_ms,
            predicted_ms=predicted,
            fastest_mode=idle.mode_id,
        )
    return InfeasibleBudget(
        f"fastest allowed mode {fastest.mode_id} predicts {fastest.median_ms:.3g} ms, "
        f"up to {fastest.bound_ms:.3g} ms, > {limits.left_ms:.3g} ms left of budget {limit:g} ms",
        budget_ms=limits.limit_ms,
        predicted_ms=predicted,
        fastest_mode=fastest.mode_id,
    )
