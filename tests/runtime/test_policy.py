"""The choice of a mode: every reason, every refusal, and what holds whatever the figures are."""

import dataclasses
import math
from typing import Any, List, Optional, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenet_runtime.errors import BudgetImpossible, InfeasibleBudget, NotResident, Refused
from wenet_runtime.forecast import Forecast
from wenet_runtime.policy import Choice, Limits
from wenet_runtime.policy import select as select_among


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One allowed mode, as a row of a forecast."""

    mode_id: str
    accuracy: float
    median_ms: float
    bound_ms: float
    idle_ms: float
    energy_mj: Optional[float] = None
    resident: bool = True
    price_mj: Optional[float] = None


def select(candidates: Sequence[Candidate], limits: Limits) -> Choice:
    """The choice among candidates in any order."""
    rows = sorted(candidates, key=lambda one: (-one.accuracy, one.median_ms))
    forecast = Forecast(
        ids=[one.mode_id for one in rows],
        accuracies=[one.accuracy for one in rows],
        medians_ms=[one.median_ms for one in rows],
        bounds_ms=[one.bound_ms for one in rows],
        idles_ms=[one.idle_ms for one in rows],
        energies_mj=[one.energy_mj for one in rows],
        prices_mj=[one.price_mj for one in rows],
    )
    resident = [at for at, one in enumerate(rows) if one.resident]
    return select_among(forecast, range(len(rows)), limits, resident)


def candidate(mode_id: str, accuracy: float, median_ms: float, **more: Any) -> Candidate:
    """A mode whose bound is a tenth over its median, and which an idle device runs as fast."""
    figures = {"bound_ms": median_ms * 1.1, "idle_ms": median_ms, **more}
    return Candidate(mode_id, accuracy, median_ms, **figures)


SMALL = candidate("small", 0.7, 2.0, energy_mj=1.0)
MIDDLE = candidate("middle", 0.8, 10.0, energy_mj=5.0)
LARGE = candidate("large", 0.9, 50.0, energy_mj=25.0)
ALL = [SMALL, MIDDLE, LARGE]


def test_without_a_budget_the_most_accurate_answers() -> None:
    choice = select(ALL, Limits())
    assert (choice.mode_id, choice.reason, choice.median_ms, choice.energy_mj) == ("large", "fits", 50.0, 25.0)


def test_a_budget_takes_the_most_accurate_that_fits() -> None:
    assert select(ALL, Limits(left_ms=20.0, limit_ms=20.0)).mode_id == "middle"
    assert select(ALL, Limits(left_ms=20.0, limit_ms=20.0)).reason == "fits"


def test_a_mode_fits_by_its_bound_and_not_by_its_median() -> None:
    assert select(ALL, Limits(left_ms=10.5, limit_ms=10.5)).mode_id == "small"
    assert select(ALL, Limits(left_ms=11.0, limit_ms=11.0)).mode_id == "middle"


def test_of_equal_accuracy_the_faster_one_answers() -> None:
    twin = candidate("twin", 0.9, 30.0)
    assert select([*ALL, twin], Limits()).mode_id == "twin"


def test_energy_that_tightens_the_choice_is_the_reason() -> None:
    choice = select(ALL, Limits(left_ms=100.0, limit_ms=100.0, energy_mj=6.0))
    assert (choice.mode_id, choice.reason) == ("middle", "energy")


def test_energy_that_changes_nothing_is_not_the_reason() -> None:
    assert select(ALL, Limits(energy_mj=25.0)).reason == "fits"


def test_a_mode_of_unknown_energy_never_meets_an_energy_budget() -> None:
    unknown = candidate("unknown", 0.99, 1.0)
    assert select([*ALL, unknown], Limits(energy_mj=6.0)).mode_id == "middle"


def test_a_pin_is_the_reason_it_answered() -> None:
    assert select([MIDDLE], Limits(pinned=True)).reason == "pinned"


def test_a_single_mode_says_so() -> None:
    assert select([MIDDLE], Limits()).reason == "only-mode"


def test_degrading_takes_the_fastest_whose_median_is_in_time() -> None:
    choice = select(ALL, Limits(left_ms=2.1, limit_ms=2.1))
    assert (choice.mode_id, choice.reason) == ("small", "degraded")


def test_degrading_may_exceed_the_energy_budget() -> None:
    greedy = [candidate("greedy", 0.7, 2.0, energy_mj=9.0), MIDDLE]
    choice = select(greedy, Limits(left_ms=5.0, limit_ms=5.0, energy_mj=6.0))
    assert (choice.mode_id, choice.reason, choice.energy_mj) == ("greedy", "degraded", 9.0)


def test_degrading_refuses_what_not_even_the_median_meets() -> None:
    with pytest.raises(InfeasibleBudget) as caught:
        select(ALL, Limits(left_ms=1.0, limit_ms=20.0))
    assert (caught.value.fastest_mode, caught.value.budget_ms) == ("small", 20.0)
    assert caught.value.predicted_ms == pytest.approx(21.0)  # 19 ms are gone, 2 ms are to come
    assert "up to 2.2 ms; 1 ms are left of budget 20 ms" in str(caught.value)


def test_rejecting_refuses_what_degrading_would_answer() -> None:
    limits = Limits(left_ms=2.1, limit_ms=2.1, on_miss="reject")
    with pytest.raises(InfeasibleBudget):
        select(ALL, limits)


def test_late_answers_even_when_the_time_is_over() -> None:
    choice = select(ALL, Limits(left_ms=-5.0, limit_ms=1.0, on_miss="late"))
    assert (choice.mode_id, choice.reason) == ("small", "degraded")


def test_what_no_idle_device_could_do_is_impossible() -> None:
    with pytest.raises(BudgetImpossible, match="small takes 2 ms on an idle device > budget 1 ms") as caught:
        select(ALL, Limits(left_ms=1.0, limit_ms=1.0))
    assert (caught.value.fastest_mode, caught.value.budget_ms) == ("small", 1.0)


def test_what_only_a_slow_device_cannot_do_is_infeasible_now() -> None:
    slowed = [candidate("small", 0.7, 8.0, idle_ms=2.0)]
    with pytest.raises(InfeasibleBudget):
        select(slowed, Limits(left_ms=5.0, limit_ms=5.0))


def test_an_energy_budget_below_every_mode_is_impossible() -> None:
    with pytest.raises(BudgetImpossible, match="the least is 1 mJ"):
        select(ALL, Limits(left_ms=1.0, limit_ms=60.0, energy_mj=0.5, on_miss="reject"))


def test_an_energy_budget_without_any_known_energy_says_so() -> None:
    with pytest.raises(BudgetImpossible, match="none is known"):
        select([candidate("blind", 0.9, 5.0)], Limits(energy_mj=1.0, on_miss="reject"))


FIGURES = st.floats(0.01, 100.0)
CANDIDATES = st.lists(
    st.builds(
        lambda accuracy, median, tail, slow, energy: Candidate(
            "", accuracy, median, median * tail, median / slow, energy
        ),
        st.integers(0, 5).map(lambda tenths: tenths / 5),
        FIGURES,
        st.floats(1.0, 2.0),
        st.floats(0.5, 4.0),
        st.one_of(st.none(), FIGURES),
    ),
    min_size=1,
    max_size=6,
).map(lambda found: [Candidate(f"m{at}", *list(vars(one).values())[1:]) for at, one in enumerate(found)])
LIMITS = st.builds(
    lambda left, gone, energy, on_miss: Limits(left, None if left == math.inf else left + gone, energy, on_miss),
    st.one_of(st.just(math.inf), st.floats(-5.0, 100.0)),
    st.floats(0.0, 10.0),
    st.one_of(st.none(), FIGURES),
    st.sampled_from(["degrade", "reject", "late"]),
)


def fits(one: Candidate, limits: Limits) -> bool:
    energy: Optional[float] = limits.energy_mj
    return one.bound_ms <= limits.left_ms and (
        energy is None or (one.energy_mj is not None and one.energy_mj <= energy)
    )


@given(CANDIDATES, LIMITS)
def test_whatever_the_figures_no_fitting_mode_is_more_accurate_than_the_chosen(
    candidates: List[Candidate], limits: Limits
) -> None:
    by_id = {one.mode_id: one for one in candidates}
    fitting = [one for one in candidates if fits(one, limits)]
    try:
        choice = select(candidates, limits)
    except Refused:
        assert not fitting
        assert limits.on_miss != "late"
        return
    chosen = by_id[choice.mode_id]
    if fitting:
        assert chosen in fitting
        assert chosen.accuracy == max(one.accuracy for one in fitting)
        assert choice.reason != "degraded"
    else:
        assert choice.reason == "degraded"
        assert limits.on_miss != "reject"
        assert chosen.median_ms == min(one.median_ms for one in candidates)
        assert limits.on_miss == "late" or chosen.median_ms <= limits.left_ms


@given(CANDIDATES, LIMITS, st.floats(0.0, 50.0))
def test_more_time_never_gives_a_less_accurate_answer(
    candidates: List[Candidate], limits: Limits, more_ms: float
) -> None:
    looser = Limits(limits.left_ms + more_ms, limits.limit_ms, limits.energy_mj, limits.on_miss)
    if not any(fits(one, limits) for one in candidates):
        return
    by_id = {one.mode_id: one for one in candidates}
    tight, loose = (by_id[select(candidates, one).mode_id] for one in (limits, looser))
    assert loose.accuracy >= tight.accuracy


def test_an_energy_budget_that_may_be_exceeded_is_never_why_a_busy_device_refuses() -> None:
    one = Candidate("m0", 0.9, median_ms=10.0, bound_ms=11.0, idle_ms=10.0, energy_mj=5.0)
    degraded = select([one], Limits(left_ms=20.0, limit_ms=20.0, energy_mj=1.0))
    assert (degraded.mode_id, degraded.reason) == ("m0", "degraded")
    with pytest.raises(InfeasibleBudget):
        select([one], Limits(left_ms=5.0, limit_ms=20.0, energy_mj=1.0))
    with pytest.raises(BudgetImpossible, match="the least is 5 mJ"):
        select([one], Limits(left_ms=20.0, limit_ms=20.0, energy_mj=1.0, on_miss="reject"))


def there(*mode_ids: str) -> List[Candidate]:
    """All three modes, of which these are resident."""
    return [dataclasses.replace(one, resident=one.mode_id in mode_ids) for one in ALL]


def test_a_mode_that_is_not_there_is_wanted_and_the_best_that_is_answers() -> None:
    choice = select(there("small", "middle"), Limits())
    assert (choice.mode_id, choice.reason, choice.wanted) == ("middle", "fits", "large")


def test_nothing_is_wanted_when_the_best_is_there() -> None:
    assert select(there("large"), Limits()).wanted is None
    assert select(there("small", "middle"), Limits(left_ms=20.0, limit_ms=20.0)).wanted is None


def test_a_mode_that_would_not_fit_is_not_wanted() -> None:
    choice = select(there("small"), Limits(left_ms=20.0, limit_ms=20.0))
    assert (choice.mode_id, choice.wanted) == ("small", "middle")


def test_of_allowed_modes_none_of_which_is_there_one_is_wanted_and_the_request_refused() -> None:
    for pinned in (True, False):
        with pytest.raises(NotResident, match="mode large is being loaded") as caught:
            select(there("small", "middle")[2:], Limits(pinned=pinned))
        assert caught.value.wanted == "large"


def test_a_refusal_for_time_says_which_mode_would_have_been_in_time() -> None:
    slow = [dataclasses.replace(MIDDLE, resident=False), LARGE]
    with pytest.raises(InfeasibleBudget) as caught:
        select(slow, Limits(left_ms=20.0, limit_ms=100.0))
    assert caught.value.wanted == "middle"


def test_what_no_mode_could_meet_wants_none() -> None:
    with pytest.raises(BudgetImpossible) as caught:
        select(there("small"), Limits(left_ms=1.0, limit_ms=1.0))
    assert caught.value.wanted is None


def test_why_a_mode_answers_does_not_depend_on_which_are_there() -> None:
    assert select(there("small"), Limits()).reason == "fits"
    assert select([dataclasses.replace(LARGE, resident=True)], Limits()).reason == "only-mode"


@given(
    figures=st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 100), st.booleans()), min_size=1, max_size=6),
    left_ms=st.floats(0.1, 200),
    on_miss=st.sampled_from(["degrade", "reject", "late"]),
)
def test_only_what_is_there_answers_and_only_what_would_have_been_chosen_is_wanted(
    figures: List[Any], left_ms: float, on_miss: str
) -> None:
    modes = [candidate(str(number), accuracy, ms) for number, (accuracy, ms, _) in enumerate(figures)]
    some = [dataclasses.replace(mode, resident=figure[2]) for mode, figure in zip(modes, figures)]
    limits = Limits(left_ms=left_ms, limit_ms=left_ms, on_miss=on_miss)
    try:
        best: Optional[str] = select(modes, limits).mode_id
    except Refused:
        best = None
    try:
        choice = select(some, limits)
        assert some[int(choice.mode_id)].resident
        wanted, answered = choice.wanted, choice.mode_id
    except Refused as refusal:
        wanted, answered = refusal.wanted, None
    assert wanted == (None if best == answered else best)


def test_what_others_who_wait_leave_is_kept_and_named() -> None:
    choice = select(ALL, Limits(left_ms=100.0, limit_ms=100.0, room_ms=20.0))
    assert (choice.mode_id, choice.reason) == ("middle", "fits")
    assert choice.passed_over == ("large", "no-room", pytest.approx(55.0), 20.0)


def test_where_no_mode_leaves_room_the_quickest_that_is_in_time_answers() -> None:
    choice = select(ALL, Limits(left_ms=100.0, limit_ms=100.0, room_ms=0.1))
    assert (choice.mode_id, choice.reason) == ("small", "fits")


def test_room_for_others_never_refuses_a_request_nor_breaks_its_pin() -> None:
    assert select([LARGE], Limits(room_ms=-5.0, pinned=True, on_miss="reject")).mode_id == "large"


def test_a_power_budget_tightens_the_choice_and_is_the_reason() -> None:
    priced = [dataclasses.replace(one, price_mj=one.energy_mj) for one in ALL]
    choice = select(priced, Limits(price_mj=6.0))
    assert (choice.mode_id, choice.reason) == ("middle", "energy")
    assert choice.passed_over == ("large", "over-power", 25.0, 6.0)


def test_where_every_mode_exceeds_the_power_budget_the_most_frugal_answers_even_under_reject() -> None:
    priced = [dataclasses.replace(one, price_mj=one.energy_mj) for one in ALL]
    assert select(priced, Limits(price_mj=0.0, on_miss="reject")).mode_id == "small"


def test_without_known_prices_a_power_budget_leaves_the_quickest() -> None:
    assert select(ALL, Limits(price_mj=3.0)).mode_id == "small"


def test_what_was_passed_over_is_the_next_more_accurate_mode() -> None:
    assert select(ALL, Limits(left_ms=20.0, limit_ms=20.0)).passed_over == (
        "large",
        "too-slow",
        pytest.approx(55.0),
        20.0,
    )
    over = select(ALL, Limits(left_ms=2.5, limit_ms=2.5)).passed_over
    assert over is not None
    assert over.mode_id == "middle"
    assert select(ALL, Limits()).passed_over is None
    assert select(ALL, Limits(energy_mj=6.0)).passed_over == ("large", "too-dear", 25.0, 6.0)


@given(CANDIDATES, LIMITS, st.floats(-5.0, 100.0), st.floats(0.0, 100.0))
def test_room_and_power_change_which_mode_answers_and_never_whether(
    candidates: List[Candidate], limits: Limits, room_ms: float, price_mj: float
) -> None:
    def outcome(one: Limits) -> Any:
        try:
            return select(candidates, one).reason == "degraded"
        except Refused as refusal:
            return type(refusal)

    assert outcome(limits._replace(room_ms=room_ms, price_mj=price_mj)) == outcome(limits)


def test_what_only_a_mode_that_is_not_there_could_meet_is_not_called_impossible() -> None:
    away = [dataclasses.replace(MIDDLE, resident=False), LARGE]
    with pytest.raises(InfeasibleBudget) as caught:
        select(away, Limits(left_ms=20.0, limit_ms=20.0))
    assert caught.value.wanted == "middle"


def test_under_reject_time_and_energy_together_may_be_impossible() -> None:
    frugal = [dataclasses.replace(SMALL, energy_mj=20.0), MIDDLE, LARGE]
    with pytest.raises(BudgetImpossible, match="fastest allowed mode middle of those within 5 mJ takes 10 ms"):
        select(frugal, Limits(left_ms=9.0, limit_ms=9.0, energy_mj=5.0, on_miss="reject"))


def test_energy_is_not_the_reason_where_it_bound_nothing() -> None:
    choice = select(there("small"), Limits(energy_mj=1000.0))
    assert (choice.mode_id, choice.reason) == ("small", "fits")


def test_figures_that_are_no_numbers_never_fit() -> None:
    broken = candidate("broken", 0.99, math.nan)
    assert select([broken, SMALL], Limits(left_ms=5.0, limit_ms=5.0)).mode_id == "small"
