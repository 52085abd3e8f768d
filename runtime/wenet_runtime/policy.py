"""Which mode answers: pure functions from predictions and a budget to a choice."""

import math
from dataclasses import dataclass, replace
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from wenet_runtime.errors import BudgetImpossible, InfeasibleBudget, NotResident, Refused
from wenet_runtime.forecast import Forecast
from wenet_runtime.manifest import Rule


class PassedOver(NamedTuple):
    """The next more accurate allowed mode, and why it did not answer.

    `why` is `too-slow`, `too-dear` (the request's energy), `over-power` (the power budget), `no-room` (those who wait
    would miss their deadlines), `not-worth` (the accuracy gained is less than what later requests would lose)
    or `not-resident`; `value` was held against `limit`.
    """

    mode_id: str
    why: str
    value: float
    limit: float


@dataclass(frozen=True)
class Choice:
    """The mode that answers, why, and what it is predicted to take from now, ms.

    Attributes:
        energy_mj: predicted, per row; None when unknown.
        wanted: the mode that would have been chosen, had it been resident.
        cap_mj: what the power budget left, above idle and per row; None without one.
        rule: of the cascade by which a cheaper mode is tried before this one.
        cascade_mj: what the cheaper mode and this one take, per row; None when unknown, or without a cascade.
    """

    mode_id: str
    reason: str
    median_ms: float
    energy_mj: Optional[float]
    wanted: Optional[str] = None
    bound_ms: float = math.inf
    passed_over: Optional[PassedOver] = None
    cap_mj: Optional[float] = None
    rule: Optional[Rule] = None
    cascade_mj: Optional[Tuple[float, float]] = None


class Limits(NamedTuple):
    """What applies to one decision.

    Attributes:
        left_ms: time until the effective deadline; infinity without one.
        limit_ms: the whole effective budget from the request's start, for the message and `idle_ms`.
        energy_mj: energy budget per row, or None.
        on_miss: `degrade`, `reject` or `late`.
        pinned: the request named its one mode.
        room_ms: what others who wait leave. Never a reason to refuse.
        price_mj: what the power budget leaves, above idle and per row. Never a reason to refuse.
        future: what later requests are worth, in accuracy, by how long this one runs, ms; None while unknown.
    """

    left_ms: float = math.inf
    limit_ms: Optional[float] = None
    energy_mj: Optional[float] = None
    on_miss: str = "degrade"
    pinned: bool = False
    room_ms: float = math.inf
    price_mj: float = math.inf
    future: Optional[Callable[[float], float]] = None


def select(
    forecast: Forecast, allowed: Sequence[int], limits: Limits, resident: Optional[Sequence[int]] = None
) -> Choice:
    """Choose among the allowed modes.

    Of the modes that are predicted to finish in time and meet the energy budget, and that leave room to others and
    power to later ones, the one that is best together with the future: the most accurate where that is unknown. Where
    none does all of it, the quickest (or the most frugal) of those that keep the request's own budget. When none
    keeps that, `on_miss` decides. Only resident modes answer; where another
    would have been chosen, the choice, or the refusal, says which is wanted.

    Args:
        forecast: of all modes.
        allowed: which of them the request accepts, ascending: the accuracy floor and a pin are applied. Not empty.
        limits: the time left and the budgets.
        resident: which of those can answer now; all if not given.

    Raises:
        BudgetImpossible: not even an idle device could meet it.
        InfeasibleBudget: possible, but not now.
        NotResident: possible, but none of the modes is resident.
    """
    if resident is None or len(resident) == len(allowed):
        return _select(forecast, allowed, allowed, limits)
    best = _select(forecast, allowed, allowed, limits)
    if any(forecast.ids[one] == best.mode_id for one in resident):
        return best
    try:
        if not resident:
            raise NotResident(f"mode {best.mode_id} is being loaded and no other allowed mode is resident: send again")
        return replace(
            _select(forecast, resident, allowed, limits),
            wanted=best.mode_id,
            passed_over=PassedOver(best.mode_id, "not-resident", math.nan, math.nan),
        )
    except Refused as refusal:
        refusal.wanted = best.mode_id
        raise


def _select(forecast: Forecast, candidates: Sequence[int], allowed: Sequence[int], limits: Limits) -> Choice:
    """The choice among candidates, which are some of the allowed modes."""
    bounds, left_ms, room_ms, future = forecast.bounds_ms, limits.left_ms, limits.room_ms, limits.future
    medians, accuracies, reply_ms = forecast.medians_ms, forecast.accuracies, forecast.reply_ms
    fits: List[int] = []
    best, best_score, quickest_ms = -1, -math.inf, math.inf
    energy_free = limits.energy_mj is None and limits.price_mj == math.inf
    for one in candidates:
        bound_ms = bounds[one]
        if not bound_ms <= left_ms:
            continue
        if not (energy_free or _affordable(forecast, one, limits)):
            continue
        fits.append(one)
        if bound_ms > room_ms or not (energy_free or _within_power(forecast, one, limits)):
            continue
        if future is None:
            best = one
            break
        median_ms = medians[one]
        if median_ms >= quickest_ms:  # slower and no more accurate than one before it
            continue
        quickest_ms = median_ms
        score = accuracies[one] + future(median_ms - reply_ms)
        if score > best_score:
            best, best_score = one, score
    if best < 0 and fits:
        best = _least(forecast, fits, limits)
    if best >= 0:
        return _choice(forecast, best, candidates, allowed, limits)
    fastest = min(candidates, key=lambda one: (medians[one], one))
    median_ms = medians[fastest]
    if limits.on_miss == "late" or (limits.on_miss == "degrade" and median_ms <= left_ms):
        return replace(_choice(forecast, fastest, candidates, allowed, limits), reason="degraded")
    raise _refusal(forecast, allowed, fastest, limits)


def _least(forecast: Forecast, fits: Sequence[int], limits: Limits) -> int:
    """Where every fitting mode takes too much from others: the quickest if it is time, the most frugal if power."""
    roomy = [one for one in fits if forecast.bounds_ms[one] <= limits.room_ms]
    known = [one for one in roomy if forecast.prices_mj[one] is not None]
    if known:
        return min(known, key=lambda one: (forecast.prices_mj[one] or 0.0, one))
    return min(roomy or fits, key=lambda one: (forecast.medians_ms[one], one))


def _within(value: Optional[float], limit: float) -> bool:
    return value is not None and value <= limit


def _choice(forecast: Forecast, one: int, candidates: Sequence[int], allowed: Sequence[int], limits: Limits) -> Choice:
    better = [other for other in candidates if other < one]
    return Choice(
        forecast.ids[one],
        _reason(forecast, one, better, allowed, limits),
        forecast.medians_ms[one],
        forecast.energies_mj[one],
        bound_ms=forecast.bounds_ms[one],
        passed_over=_passed_over(forecast, better[-1], one, limits) if better else None,
        cap_mj=None if limits.price_mj == math.inf else limits.price_mj,
    )


def _passed_over(forecast: Forecast, over: int, one: int, limits: Limits) -> PassedOver:
    mode_id, bound_ms = forecast.ids[over], forecast.bounds_ms[over]
    energy, price = forecast.energies_mj[over], forecast.prices_mj[over]
    if bound_ms > limits.left_ms:
        return PassedOver(mode_id, "too-slow", bound_ms, limits.left_ms)
    if limits.energy_mj is not None and not _within(energy, limits.energy_mj):
        return PassedOver(mode_id, "too-dear", math.nan if energy is None else energy, limits.energy_mj)
    if bound_ms > limits.room_ms:
        return PassedOver(mode_id, "no-room", bound_ms, limits.room_ms)
    if not _within_power(forecast, over, limits):
        return PassedOver(mode_id, "over-power", math.nan if price is None else price, limits.price_mj)
    gained = forecast.accuracies[over] - forecast.accuracies[one]
    lost = 0.0
    if limits.future is not None:
        reply_ms = forecast.reply_ms
        lost = limits.future(forecast.medians_ms[one] - reply_ms) - limits.future(forecast.medians_ms[over] - reply_ms)
    return PassedOver(mode_id, "not-worth", gained, lost)


def _reason(forecast: Forecast, best: int, better: Sequence[int], allowed: Sequence[int], limits: Limits) -> str:
    if limits.pinned:
        return "pinned"
    if len(allowed) == 1:
        return "only-mode"
    if limits.energy_mj is None and limits.price_mj == math.inf:
        return "fits"
    # Energy is the reason if it alone kept a better one from answering.
    tight_ms = min(limits.left_ms, limits.room_ms)
    for other in better:
        frugal = _affordable(forecast, other, limits) and _within_power(forecast, other, limits)
        if forecast.bounds_ms[other] <= tight_ms and not frugal:
            return "energy"
    return "fits"


def _affordable(forecast: Forecast, one: int, limits: Limits) -> bool:
    """Whether a mode keeps the request's own energy budget."""
    return limits.energy_mj is None or _within(forecast.energies_mj[one], limits.energy_mj)


def _within_power(forecast: Forecast, one: int, limits: Limits) -> bool:
    """Whether a mode keeps the power budget."""
    return limits.price_mj == math.inf or _within(forecast.prices_mj[one], limits.price_mj)


def _refusal(forecast: Forecast, allowed: Sequence[int], fastest: int, limits: Limits) -> Exception:
    budget_mj = limits.energy_mj
    # Under `degrade` the energy budget may be exceeded, so only time can have refused.
    if limits.on_miss == "reject" and budget_mj is not None:
        frugal = [one for one in allowed if _within(forecast.energies_mj[one], budget_mj)]
        if not frugal:
            known = [energy for energy in (forecast.energies_mj[one] for one in allowed) if energy is not None]
            least = f"the least is {min(known):.3g} mJ" if known else "none is known"
            return BudgetImpossible(f"no allowed mode takes ≤ {budget_mj:g} mJ: {least}")
        allowed = frugal
        fastest = min(frugal, key=lambda one: forecast.medians_ms[one])
    limit = math.inf if limits.limit_ms is None else limits.limit_ms
    predicted = (limit - limits.left_ms) + forecast.medians_ms[fastest]
    idle = min(allowed, key=lambda one: forecast.idles_ms[one])
    within = "" if budget_mj is None or limits.on_miss != "reject" else f" of those within {budget_mj:g} mJ"
    if forecast.idles_ms[idle] > limit:
        return BudgetImpossible(
            f"fastest allowed mode {forecast.ids[idle]}{within} takes {forecast.idles_ms[idle]:.3g} ms on an idle "
            f"device > budget {limit:g} ms",
            budget_ms=limits.limit_ms,
            predicted_ms=predicted,
            fastest_mode=forecast.ids[idle],
        )
    left = f"{limits.left_ms:.3g} ms are left" if limits.left_ms > 0 else "nothing is left"
    return InfeasibleBudget(
        f"fastest allowed mode {forecast.ids[fastest]}{within} predicts {forecast.medians_ms[fastest]:.3g} ms, "
        f"up to {forecast.bounds_ms[fastest]:.3g} ms; {left} of budget {limit:g} ms",
        budget_ms=limits.limit_ms,
        predicted_ms=predicted,
        fastest_mode=forecast.ids[fastest],
    )
