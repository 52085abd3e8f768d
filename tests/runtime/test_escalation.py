"""A cheaper mode is tried first only where nothing can be lost by it but what the bundle certifies."""

import dataclasses
import math
from typing import Any, List, Optional

import numpy as np
import pytest

from tests.runtime.fakes import MEDIANS_MS, profile
from wenet_runtime.admission import Job
from wenet_runtime.assignment import Assignment, Part
from wenet_runtime.budget import Budget, Deadline, RequestOptions
from wenet_runtime.bundle import Bundle, Rule
from wenet_runtime.cascade import Cascade
from wenet_runtime.controller import Controller
from wenet_runtime.escalation import Escalation
from wenet_runtime.residency import Residency
from wenet_runtime.scheduler import Scheduler

RULE = Rule("m1", "m2", "margin", 1.5, 0.003, 0.05, 10_000, 0.3, 0.001, "ab" * 32)
ENERGIES_MJ = {"m0": 2.0, "m1": 20.0, "m2": 200.0}


def make(bundle: Bundle, *rules: Rule) -> "Scheduler[int]":
    """Modes of 1, 10 and 100 ms, their tail a tenth."""
    profiles = {name: profile(p50_ms, ENERGIES_MJ[name]) for name, p50_ms in MEDIANS_MS.items()}
    return Scheduler(Controller(bundle.modes, profiles), escalation=Escalation(Cascade(rules or (RULE,), "logits")))


def given(
    scheduler: "Scheduler[int]",
    *,
    rows: int = 1,
    client: str = "",
    residency: Optional[Residency] = None,
    **options: Any,
) -> "Assignment[int]":
    budget = Budget(options.pop("budget_ms", None), options.pop("budget_mj", None), options.pop("min_accuracy", None))
    wanted = RequestOptions(budget=budget, **options)
    scheduler.submit(Job(0, rows, wanted, Deadline(0.0, wanted.effective_ms), 0.0, client=client), 0.0, residency)
    found = scheduler.next(0.0, residency)
    assert isinstance(found, Assignment)
    return found


def end(scheduler: "Scheduler[int]", found: "Assignment[int]", escalated: List[bool]) -> None:
    rule = found.choice.rule
    assert rule is not None
    parts = [Part(rule.first, len(escalated), 10.0)]
    if any(escalated):
        parts.append(Part(rule.then, sum(escalated), 100.0))
    scheduler.finished(found, 0.0, sum(part.ms for part in parts) / 1e3, parts=parts, escalated=np.array(escalated))


def test_the_cheaper_mode_is_tried_first_and_the_prediction_is_the_mean(bundle: Bundle) -> None:
    choice = given(make(bundle)).choice
    assert (choice.mode_id, choice.reason, choice.rule) == ("m2", "cascade", RULE)
    assert choice.median_ms == pytest.approx(10.0 + 0.3 * 100.0)
    assert choice.energy_mj == pytest.approx(20.0 + 0.3 * 200.0)


def test_both_modes_must_fit_into_the_time_left(bundle: Bundle) -> None:
    assert given(make(bundle), budget_ms=125.0).choice.reason == "cascade"  # 11 ms and 110 ms at the most
    assert given(make(bundle), budget_ms=115.0).choice.reason == "fits"


def test_both_modes_must_leave_room_to_those_who_wait(bundle: Bundle) -> None:
    scheduler = make(bundle)
    wanted = RequestOptions(Budget(112.5), mode="m0")
    scheduler.submit(Job(1, 1, wanted, Deadline(0.0, 112.5), 0.0), 0.0)
    assert given(scheduler, budget_ms=112.0).choice.reason == "fits"


@pytest.mark.parametrize("budget_mj", [199.0, 219.0])
def test_both_modes_must_fit_into_the_energy_budget(bundle: Bundle, budget_mj: float) -> None:
    assert given(make(bundle), budget_mj=budget_mj).choice.rule is None
    assert given(make(bundle), budget_mj=221.0).choice.rule is RULE


def test_the_certified_loss_is_within_the_accuracy_floor(bundle: Bundle) -> None:
    floor = bundle.mode("m2").accuracy.value
    assert given(make(bundle), min_accuracy=floor).choice.reason in ("fits", "only-mode")
    assert given(make(bundle), min_accuracy=floor - 0.004).choice.reason == "cascade"


def test_a_pin_is_a_pin(bundle: Bundle) -> None:
    choice = given(make(bundle), mode="m2").choice
    assert (choice.reason, choice.rule) == ("pinned", None)


def test_modes_without_a_rule_or_away_are_not_tried(bundle: Bundle) -> None:
    assert given(make(bundle), budget_ms=50.0).choice.mode_id == "m1"
    assert given(make(bundle), budget_ms=50.0).choice.rule is None
    away = Residency(frozenset({"m0", "m2"}))
    assert given(make(bundle), residency=away).choice.rule is None


def test_the_cheapest_of_several_rules_is_taken_as_the_device_is_now(bundle: Bundle) -> None:
    quick = dataclasses.replace(RULE, first="m0", escalated=0.25)
    choice = given(make(bundle, RULE, quick)).choice
    assert choice.rule is quick
    hardly = dataclasses.replace(RULE, first="m0", escalated=0.95)
    assert given(make(bundle, RULE, hardly)).choice.rule is RULE


def test_an_attack_costs_little_and_is_found_within_fifty_requests(bundle: Bundle) -> None:
    scheduler = make(bundle)
    spent_ms, reasons = 0.0, []
    for _ in range(400):
        found = given(scheduler, client="attacker")
        reasons.append(found.choice.reason)
        if found.choice.rule is None:
            scheduler.finished(found, 0.0, 0.1)
            spent_ms += 100.0
        else:
            end(scheduler, found, [True])
            spent_ms += 110.0
    assert reasons.index("guard") < 50
    assert spent_ms <= 1.1 * 400 * 100.0
    assert set(reasons) == {"cascade", "guard"}


def test_normal_traffic_keeps_its_cascade(bundle: Bundle) -> None:
    scheduler, draw = make(bundle), np.random.default_rng(0)
    reasons = []
    for _ in range(500):
        found = given(scheduler, client="camera")
        reasons.append(found.choice.reason)
        end(scheduler, found, [bool(draw.random() < 0.3)])
    assert reasons.count("cascade") >= 495


def test_more_rows_than_the_guard_ever_allows_are_simply_not_cascaded(bundle: Bundle) -> None:
    assert given(make(bundle), rows=19).choice.reason == "fits"
    assert given(make(bundle), rows=18).choice.reason == "cascade"


@pytest.mark.parametrize(("cap_mj", "reason"), [(None, "cascade"), (200.0, "fits")])
def test_under_a_power_budget_a_cascade_must_save_energy_too(
    bundle: Bundle, cap_mj: Optional[float], reason: str
) -> None:
    dear = {"m0": 2.0, "m1": 190.0, "m2": 200.0}  # in the mean the cascade takes 250
    profiles = {name: profile(p50_ms, dear[name]) for name, p50_ms in MEDIANS_MS.items()}
    controller, escalation = Controller(bundle.modes, profiles), Escalation(Cascade([RULE], "logits"))
    options = RequestOptions()
    alone = controller.choose(options, Deadline(0.0, None), rows=1, now_s=0.0)
    job = Job(0, 1, options, Deadline(0.0, None), 0.0)
    tried = escalation.tried(dataclasses.replace(alone, cap_mj=cap_mj), [job], 1, controller, math.inf, None)
    assert tried.reason == reason


def test_a_batch_is_charged_row_by_row(bundle: Bundle) -> None:
    scheduler = make(bundle)
    assert scheduler.escalation is not None
    before = scheduler.escalation.guard.state.tokens
    found = given(scheduler, rows=4, client="one")
    end(scheduler, found, [True, False, True, True])
    assert scheduler.escalation.guard.state.tokens < before - 1.0
