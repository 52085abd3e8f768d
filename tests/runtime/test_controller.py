"""Prediction: profile × slowdown, what is allowed, and how results are fed back."""

import math
from typing import Any, Dict, Optional

import pytest

from tests.runtime.fakes import MEDIANS_MS, profile
from wenet_runtime.budget import Budget, Deadline, RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.controller import Controller
from wenet_runtime.errors import (
    BudgetError,
    BudgetImpossible,
    EnergyUnavailable,
    InfeasibleBudget,
    NotResident,
    UnknownMode,
)
from wenet_runtime.prediction import FORGOTTEN_S
from wenet_runtime.profile import Profile
from wenet_runtime.residency import Residency


def controller(bundle: Bundle, energies_mj: Optional[Dict[str, float]] = None, attainment: float = 0.99) -> Controller:
    """Modes of 1, 10 and 100 ms, their tail a tenth (a twentieth at 95 %)."""
    profiles = {name: profile(p50_ms, (energies_mj or {}).get(name)) for name, p50_ms in MEDIANS_MS.items()}
    return Controller(bundle.modes, profiles, attainment)


def choose(
    one: Controller,
    *,
    rows: int = 1,
    wait_ms: float = 0.0,
    gone_ms: float = 0.0,
    residency: Optional[Residency] = None,
    **options: Any,
) -> Any:
    budget = Budget(options.pop("budget_ms", None), options.pop("budget_mj", None), options.pop("min_accuracy", None))
    wanted = RequestOptions(budget=budget, **options)
    deadline = Deadline(0.0, wanted.effective_ms)
    return one.choose(wanted, deadline, rows=rows, now_s=gone_ms / 1e3, wait_ms=wait_ms, residency=residency)


def median_ms(one: Controller, mode_id: str, rows: int = 1) -> float:
    return one.forecast(rows).medians_ms[one.predictor.index[mode_id]]


def bound_ms(one: Controller, mode_id: str, rows: int = 1) -> float:
    return one.forecast(rows).bounds_ms[one.predictor.index[mode_id]]


def test_the_budget_moves_the_choice(bundle: Bundle) -> None:
    one = controller(bundle)
    chosen = [choose(one, budget_ms=budget_ms).mode_id for budget_ms in (5.0, 20.0, 200.0)]
    assert chosen == ["m0", "m1", "m2"]


def test_time_already_gone_and_time_to_wait_count(bundle: Bundle) -> None:
    one = controller(bundle)
    assert choose(one, budget_ms=120.0).mode_id == "m2"
    assert choose(one, budget_ms=120.0, gone_ms=15.0).mode_id == "m1"
    assert choose(one, budget_ms=120.0, wait_ms=15.0).mode_id == "m1"


def test_a_batch_takes_its_rows_times(bundle: Bundle) -> None:
    assert choose(controller(bundle), budget_ms=60.0, rows=4).mode_id == "m1"
    assert choose(controller(bundle), budget_ms=40.0, rows=4).mode_id == "m0"


def test_the_tail_is_the_profile_s_until_enough_was_seen(bundle: Bundle) -> None:
    assert bound_ms(controller(bundle), "m2") == pytest.approx(110.0)
    assert bound_ms(controller(bundle, attainment=0.9), "m2") == pytest.approx(105.0)
    seen = controller(bundle)
    for at in range(50):
        seen.observe("m2", 100.0, 1, at * 0.01)
    assert bound_ms(seen, "m2") == pytest.approx(100.0)


def test_a_slower_device_chooses_a_smaller_mode_and_comes_back_when_idle(bundle: Bundle) -> None:
    one = controller(bundle)
    assert choose(one, budget_ms=150.0).mode_id == "m2"
    for at in range(5):
        one.observe("m2", 300.0, 1, at * 0.01)
    assert choose(one, budget_ms=150.0).mode_id == "m1"
    assert choose(one, budget_ms=300_150.0, gone_ms=300_000.0).mode_id == "m2"


def test_what_a_slowdown_alone_prevents_is_not_impossible(bundle: Bundle) -> None:
    one = controller(bundle)
    for at in range(5):
        one.observe("m0", 10.0, 1, at * 0.01)
    with pytest.raises(InfeasibleBudget):
        choose(one, budget_ms=5.0)
    with pytest.raises(BudgetImpossible):
        choose(one, budget_ms=0.5)


def test_a_batch_s_time_is_compared_with_a_batch_s(bundle: Bundle) -> None:
    one = controller(bundle)
    for at in range(5):
        one.observe("m1", 80.0, 8, at * 0.01)
    assert one.slowdown.factor == pytest.approx(1.0)


@pytest.mark.parametrize("infer_ms", [math.nan, math.inf])
def test_a_time_that_is_no_number_is_not_learned(bundle: Bundle, infer_ms: float) -> None:
    one = controller(bundle)
    for at in range(5):
        one.observe("m1", infer_ms, 1, at * 0.01)
    assert one.slowdown.factor == 1.0


def test_what_replies_take_after_the_inference_is_predicted_too(bundle: Bundle) -> None:
    one = controller(bundle)
    for overhead_ms in [2.0] * 10 + [7.0]:
        one.predictor.observe_overhead(overhead_ms)
    assert median_ms(one, "m0") == pytest.approx(3.0)
    assert bound_ms(one, "m0") == pytest.approx(8.1)
    assert one.forecast(1).idles_ms[one.predictor.index["m0"]] == pytest.approx(1.0)  # a reply may be quicker
    assert one.forecast(1).reply_ms == pytest.approx(2.0)


def test_a_floor_leaves_only_modes_that_reach_it(bundle: Bundle) -> None:
    allowed = controller(bundle).allowed(RequestOptions(budget=Budget(min_accuracy=0.85)))
    assert {mode.id for mode in allowed} == {"m1", "m2"}


def test_a_floor_is_never_broken_for_time(bundle: Bundle) -> None:
    with pytest.raises(BudgetImpossible):
        choose(controller(bundle), budget_ms=5.0, min_accuracy=0.85)


def test_a_floor_above_every_mode_names_the_best(bundle: Bundle) -> None:
    with pytest.raises(BudgetImpossible, match=r"accuracy 0.99: the best is m2 with 0.9000"):
        choose(controller(bundle), min_accuracy=0.99)


def test_a_pin_leaves_one_mode_and_is_never_broken(bundle: Bundle) -> None:
    assert choose(controller(bundle), mode="m0").reason == "pinned"
    with pytest.raises(BudgetImpossible):
        choose(controller(bundle), mode="m2", budget_ms=5.0)


def test_a_pin_on_a_mode_below_the_floor_is_impossible(bundle: Bundle) -> None:
    with pytest.raises(BudgetImpossible, match="the best is m0"):
        choose(controller(bundle), mode="m0", min_accuracy=0.85)


def test_a_pin_on_no_mode_is_refused_with_those_served(bundle: Bundle) -> None:
    with pytest.raises(UnknownMode, match="no mode 'm7': served are m2, m1, m0"):
        choose(controller(bundle), mode="m7")


def test_an_energy_budget_needs_a_known_energy(bundle: Bundle) -> None:
    with pytest.raises(EnergyUnavailable, match="choose --meter"):
        choose(controller(bundle), budget_mj=5.0)


def test_an_energy_budget_is_kept(bundle: Bundle) -> None:
    one = controller(bundle, {"m0": 1.0, "m1": 5.0, "m2": 25.0})
    assert (choose(one, budget_mj=6.0).mode_id, choose(one, budget_mj=6.0).reason) == ("m1", "energy")
    assert one.energy_mj("m2") == 25.0


def test_one_slow_reply_does_not_refuse_what_follows(bundle: Bundle) -> None:
    one = controller(bundle)
    one.predictor.observe_overhead(500.0)
    assert choose(one, budget_ms=20.0).mode_id == "m1"


def test_what_led_to_a_refusal_is_forgotten_when_in_doubt(bundle: Bundle) -> None:
    one = controller(bundle)
    for _ in range(10):
        one.predictor.observe_overhead(500.0)
    with pytest.raises(InfeasibleBudget):  # not impossible: what was seen may have been of larger replies
        choose(one, budget_ms=20.0)
    one.predictor.doubt()
    assert choose(one, budget_ms=20.0).mode_id == "m1"


def test_what_a_batch_took_is_forgotten_once_none_has_run_for_long(bundle: Bundle) -> None:
    one = controller(bundle)
    for at in range(15):
        one.observe("m0", 4 * 8 * MEDIANS_MS["m0"], 8, at * 0.1)
    for at in range(900):
        one.observe("m0", MEDIANS_MS["m0"], 1, 1.5 + at * 0.02)
        one.predictor.forget(1.5 + at * 0.02)
    assert median_ms(one, "m0", 8) == pytest.approx(4 * 8 * MEDIANS_MS["m0"], rel=0.05)
    one.predictor.forget(1.4 + FORGOTTEN_S)
    assert median_ms(one, "m0", 8) == pytest.approx(8 * MEDIANS_MS["m0"], rel=0.05)


def test_batches_do_not_teach_what_single_rows_take(bundle: Bundle) -> None:
    one = controller(bundle)
    for at in range(20):
        one.observe("m1", 0.35 * 64 * MEDIANS_MS["m1"], 64, at * 0.01)
    assert one.slowdown.factor == 1.0
    assert median_ms(one, "m1", 64) == pytest.approx(0.35 * 64 * MEDIANS_MS["m1"])
    assert median_ms(one, "m1") == pytest.approx(MEDIANS_MS["m1"])


@pytest.mark.parametrize("p50_ms", [0.0, -1.0, math.nan, math.inf])
def test_a_mode_with_an_impossible_profile_is_left_out_and_said(
    bundle: Bundle, p50_ms: float, caplog: pytest.LogCaptureFixture
) -> None:
    profiles = {"m2": Profile(p50_ms, p50_ms, p50_ms, 1), "m1": profile(10.0)}  # none of m0
    one = Controller(bundle.modes, profiles)
    assert choose(one).mode_id == "m1"
    assert [record.message.split()[1] for record in caplog.records] == ["m2", "m0"]
    with pytest.raises(BudgetError, match="no mode has a possible profile"):
        Controller(bundle.modes, {})


@pytest.mark.parametrize("attainment", [0.0, 1.0, -1.0, math.nan])
def test_an_impossible_attainment_is_refused(bundle: Bundle, attainment: float) -> None:
    with pytest.raises(BudgetError, match="between 0 and 1"):
        controller(bundle, attainment=attainment)


def test_a_batch_seen_on_a_slow_device_is_never_called_impossible(bundle: Bundle) -> None:
    one = controller(bundle)
    for at in range(5):
        one.observe("m1", 3 * 80.0, 8, at * 0.01)
    with pytest.raises(InfeasibleBudget):
        choose(one, budget_ms=150.0, rows=8, min_accuracy=0.85, mode="m1")
    one.predictor.doubt()
    assert choose(one, budget_ms=150.0, rows=8, mode="m1").mode_id == "m1"


def test_slow_replies_never_make_a_budget_impossible_that_was_possible(bundle: Bundle) -> None:
    one = controller(bundle)
    one.predictor.observe_overhead(1.0)
    for _ in range(500):
        one.predictor.observe_overhead(30.0)
    with pytest.raises(InfeasibleBudget):
        choose(one, budget_ms=15.0, mode="m1")


def test_only_resident_modes_are_chosen(bundle: Bundle) -> None:
    one = controller(bundle)
    choice = choose(one, residency=Residency(frozenset({"m0", "m1"})))
    assert (choice.mode_id, choice.wanted) == ("m1", "m2")
    choice = choose(one, budget_ms=20.0, residency=Residency(frozenset({"m0"})))
    assert (choice.mode_id, choice.wanted) == ("m0", "m1")


@pytest.mark.parametrize("options", [{"mode": "m1"}, {"min_accuracy": 0.84, "budget_ms": 20.0}])
def test_a_pin_or_a_floor_is_not_broken_for_what_is_resident(bundle: Bundle, options: Dict[str, Any]) -> None:
    with pytest.raises(NotResident) as caught:
        choose(controller(bundle), residency=Residency(frozenset({"m0"})), **options)
    assert caught.value.wanted == "m1"


def test_a_mode_out_of_service_is_neither_chosen_nor_wanted(bundle: Bundle) -> None:
    there = Residency(frozenset({"m0", "m1"}), {"m2": "it cannot be loaded"})
    choice = choose(controller(bundle), residency=there)
    assert (choice.mode_id, choice.wanted) == ("m1", None)
    with pytest.raises(UnknownMode, match="mode 'm2' is not served: it cannot be loaded"):
        choose(controller(bundle), residency=there, mode="m2")
    with pytest.raises(BudgetImpossible, match=r"accuracy 0\.9: the best is m1"):
        choose(controller(bundle), residency=there, min_accuracy=0.9)


def test_a_meter_corrects_what_a_mode_is_said_to_take(bundle: Bundle) -> None:
    one = controller(bundle, {"m0": 1.0, "m1": 5.0, "m2": 25.0})
    assert choose(one, budget_mj=6.0).mode_id == "m1"
    for at in range(50):
        one.predictor.observe_energy("m1", 6.5 + 0.001 * (at % 7), 1, 10.0)
    assert choose(one, budget_mj=6.0).mode_id == "m0"


@pytest.mark.parametrize("lie_mj", [-5.0, math.nan, math.inf, 50.0, 0.0])
def test_a_meter_that_lies_changes_nothing(bundle: Bundle, lie_mj: float) -> None:
    one = controller(bundle, {"m0": 1.0, "m1": 5.0, "m2": 25.0})
    for _ in range(50):
        one.predictor.observe_energy("m1", lie_mj, 1, 10.0)
    assert choose(one, budget_mj=6.0).mode_id == "m1"


def test_a_profile_with_an_impossible_energy_has_none(bundle: Bundle) -> None:
    for impossible in (0.0, -1.0, math.nan, math.inf):
        one = controller(bundle, {"m0": impossible, "m1": 5.0, "m2": 25.0})
        assert choose(one, budget_mj=6.0).mode_id == "m1"
        one.predictor.observe_energy("m0", 3.0, 1, 10.0)
        assert one.forecast(1).energies_mj[one.predictor.index["m0"]] is None


def test_where_only_throttling_keeps_a_better_mode_out_the_reason_says_so(bundle: Bundle) -> None:
    one = controller(bundle)
    one.predictor.clock_changed(0.5)
    assert (choose(one, budget_ms=150.0).mode_id, choose(one, budget_ms=150.0).reason) == ("m1", "fits")
    one.throttled = True
    assert (choose(one, budget_ms=150.0).mode_id, choose(one, budget_ms=150.0).reason) == ("m1", "thermal")
    assert choose(one, budget_ms=50.0).reason == "fits"  # an idle device could not do it either
