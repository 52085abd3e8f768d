"""The decision loop without threads: who is refused, who runs next, in which mode, and what is learned."""

import contextlib
import random
from typing import Any, List, Optional, Tuple

import pytest

from tests.runtime.fakes import MEDIANS_MS, profile
from wenet_runtime.admission import Job
from wenet_runtime.assignment import Assignment, Part
from wenet_runtime.budget import Budget, Deadline, RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.controller import Controller
from wenet_runtime.errors import BudgetImpossible, DeadlineExceeded, InfeasibleBudget, NotResident, QueueFull
from wenet_runtime.power_budget import PowerBudget
from wenet_runtime.residency import Residency
from wenet_runtime.scheduler import Scheduler

ENERGIES_MJ = {"m0": 2.0, "m1": 20.0, "m2": 200.0}


@pytest.fixture
def scheduler(bundle: Bundle) -> "Scheduler[int]":
    """Modes of 1, 10 and 100 ms, their tail a tenth."""
    return make(bundle)


def make(bundle: Bundle, max_queue: int = 64, power: Optional[PowerBudget] = None) -> "Scheduler[int]":
    profiles = {name: profile(p50_ms, ENERGIES_MJ[name]) for name, p50_ms in MEDIANS_MS.items()}
    return Scheduler(Controller(bundle.modes, profiles), max_queue=max_queue, power=power)


def offer(
    scheduler: "Scheduler[int]", work: int, *, now_ms: float = 0.0, gone_ms: float = 0.0, rows: int = 1, **options: Any
) -> "Job[int]":
    budget = Budget(options.pop("budget_ms", None), options.pop("budget_mj", None))
    wanted = RequestOptions(budget=budget, **options)
    start_s = (now_ms - gone_ms) / 1e3
    one = Job(work, rows, wanted, Deadline(start_s, wanted.effective_ms), now_ms / 1e3)
    scheduler.submit(one, now_ms / 1e3)
    return one


def run(scheduler: "Scheduler[int]", now_ms: float, factor: float = 1.0) -> "Assignment[int]":
    """Run the next, for as long as its mode's profile says, times a factor."""
    found = scheduler.next(now_ms / 1e3)
    assert isinstance(found, Assignment)
    scheduler.finished(found, now_ms / 1e3, (now_ms + factor * MEDIANS_MS[found.choice.mode_id]) / 1e3)
    return found


def works(scheduler: "Scheduler[int]", now_ms: float = 0.0) -> List[int]:
    """Everything that runs, one after another."""
    found = []
    while True:
        one = scheduler.next(now_ms / 1e3)
        if one is None:
            return found
        assert isinstance(one, Assignment)
        found += [job.work for job in one.jobs]
        scheduler.finished(one, now_ms / 1e3, now_ms / 1e3 + 1e-3)


def test_nothing_waits_nothing_runs(scheduler: "Scheduler[int]") -> None:
    assert scheduler.next(0.0) is None
    assert len(scheduler) == 0


def test_the_most_urgent_runs_first_in_the_best_mode_that_fits(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0)
    offer(scheduler, 1, budget_ms=300.0)
    first = run(scheduler, 0.0)
    assert [job.work for job in first.jobs] == [1]
    assert (first.choice.mode_id, first.rows) == ("m2", 1)


def test_the_choice_is_made_for_the_time_left_after_waiting(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0, budget_ms=150.0)
    assert run(scheduler, 100.0).choice.mode_id == "m1"


def test_those_who_wait_behind_leave_less_room(scheduler: "Scheduler[int]") -> None:
    for work in range(3):
        offer(scheduler, work, budget_ms=112.0)
    first = scheduler.next(0.0)
    assert isinstance(first, Assignment)
    assert first.choice.mode_id == "m1"  # 110 ms for the first, and those behind would be late
    assert first.choice.passed_over is not None
    assert (first.choice.passed_over.mode_id, first.choice.passed_over.why) == ("m2", "no-room")


def test_what_cannot_be_saved_any_more_does_not_hold_others_back(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0, budget_ms=300.0)
    lost = offer(scheduler, 1, budget_ms=301.0, mode="m2")
    lost.deadline = Deadline(0.0, 50.0)  # as if the device had become slow since
    assert run(scheduler, 0.0).choice.mode_id == "m2"


def test_waiting_counts_as_work_hurried_by_the_fastest_mode(scheduler: "Scheduler[int]") -> None:
    for work in range(20):
        offer(scheduler, work, budget_ms=500.0)
    offer(scheduler, 20, budget_ms=23.0, priority=3)  # 20 before it take 1 ms each
    with pytest.raises(InfeasibleBudget):
        offer(scheduler, 21, budget_ms=20.0, priority=3)


def test_the_engine_s_present_run_counts(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0)
    assert isinstance(scheduler.next(0.0), Assignment)  # 100 ms from now on
    with pytest.raises(InfeasibleBudget):
        offer(scheduler, 1, budget_ms=50.0)
    offer(scheduler, 2, budget_ms=50.0, now_ms=60.0)


def test_a_newcomer_is_refused_where_one_accepted_before_would_miss_its_deadline(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0, budget_ms=15.0, mode="m1")
    with pytest.raises(InfeasibleBudget, match="accepted before would then miss") as caught:
        offer(scheduler, 1, budget_ms=14.0, mode="m1")
    assert caught.value.why == "no-room"
    offer(scheduler, 2, budget_ms=14.0, mode="m0")
    offer(scheduler, 3, budget_ms=14.0, mode="m1", priority=1)  # but a more important one is not
    assert works(scheduler)[0] == 3


def test_the_impossible_is_told_from_the_present_impossibility(scheduler: "Scheduler[int]") -> None:
    with pytest.raises(BudgetImpossible):
        offer(scheduler, 0, budget_ms=0.5)
    with pytest.raises(InfeasibleBudget):
        offer(scheduler, 0, budget_ms=5.0, gone_ms=4.5)
    assert len(scheduler) == 0


def test_what_ended_while_it_waited_never_runs(scheduler: "Scheduler[int]") -> None:
    job = offer(scheduler, 0, budget_ms=50.0)
    late = offer(scheduler, 1, budget_ms=40.0, on_miss="late")
    found = scheduler.next(0.060)
    assert isinstance(found, Assignment)
    assert found.jobs == (late,)
    assert scheduler.next(0.061) is None
    ((refused, error),) = scheduler.refused
    assert refused is job
    assert isinstance(error, DeadlineExceeded)
    assert error.executed is False


def test_the_expired_can_be_taken_out_before_their_turn(scheduler: "Scheduler[int]") -> None:
    gone = offer(scheduler, 0, budget_ms=50.0)
    offer(scheduler, 1, budget_ms=90.0)
    assert scheduler.expired(0.060) == [gone]
    assert len(scheduler) == 1


def test_a_request_that_nobody_waits_for_is_taken_out(scheduler: "Scheduler[int]") -> None:
    one = offer(scheduler, 0)
    assert scheduler.discard(one, 0.0)
    assert not scheduler.discard(one, 0.0)
    assert scheduler.next(0.0) is None


def test_a_full_queue_refuses(bundle: Bundle) -> None:
    scheduler = make(bundle, max_queue=1)
    offer(scheduler, 0)
    with pytest.raises(QueueFull):
        offer(scheduler, 1)


def test_what_nothing_fits_any_more_is_refused_and_the_next_one_runs(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0, budget_ms=3.0, on_miss="reject")
    offer(scheduler, 1)
    found = scheduler.next(0.0025)
    assert isinstance(found, Assignment)
    assert found.jobs[0].work == 1
    ((_, error),) = scheduler.refused
    assert isinstance(error, InfeasibleBudget)


def test_a_step_is_learned_within_five_requests(scheduler: "Scheduler[int]") -> None:
    now_ms = 0.0
    for at in range(100):
        offer(scheduler, at, now_ms=now_ms, budget_ms=150.0)
        run(scheduler, now_ms, 1.0 + 0.001 * (at % 7))
        now_ms += 200.0
    chosen = []
    for at in range(10):
        offer(scheduler, at, now_ms=now_ms, budget_ms=150.0)
        chosen.append(run(scheduler, now_ms, 2.0).choice.mode_id)
        now_ms += 300.0
    assert chosen.count("m2") <= 5
    assert chosen[5:] == ["m1"] * 5


def test_a_mode_that_went_is_chosen_anew_for_the_same_jobs(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0)
    found = scheduler.next(0.0)
    assert isinstance(found, Assignment)
    again = scheduler.again(found, 0.001, Residency(frozenset({"m0", "m1"})))
    assert again.jobs == found.jobs
    assert (again.choice.mode_id, again.choice.wanted) == ("m1", "m2")
    with pytest.raises(NotResident):
        scheduler.again(found, 0.001, Residency(frozenset()))


def test_a_cascade_s_parts_teach_both_modes(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0)
    found = scheduler.next(0.0)
    assert isinstance(found, Assignment)
    seen: List[Any] = []
    scheduler.controller.observe = lambda *figures: seen.append(figures)  # type: ignore[method-assign]
    scheduler.finished(found, 0.0, 0.101, parts=[Part("m0", 1, 1.0), Part("m2", 1, 100.0)])
    assert seen == [("m0", 1.0, 1, 0.101), ("m2", 100.0, 1, 0.101)]


def test_a_power_budget_is_held_and_named(bundle: Bundle) -> None:
    power = PowerBudget(3.0, 60.0, 2.0)  # 1 W above idle for 10 requests a second: 100 mJ each
    scheduler = make(bundle, power=power)
    chosen, reasons = [], set()
    for at in range(1200):
        offer(scheduler, at, now_ms=at * 100.0)
        found = run(scheduler, at * 100.0)
        chosen.append(found.choice.mode_id)
        reasons.add(found.choice.reason)
    spent_mj = sum(ENERGIES_MJ[mode_id] for mode_id in chosen[600:])
    assert spent_mj == pytest.approx(60_000.0, rel=0.1)
    assert reasons == {"fits", "energy"}
    assert set(chosen[600:]) == {"m1", "m2"}


def play(scheduler: "Scheduler[int]", gaps_ms: List[float], budget_ms: float) -> List[Optional[str]]:
    """The modes that answer arrivals in these gaps, each as long as its profile says; None for a refusal."""
    found: List[Optional[str]] = [None] * len(gaps_ms)
    now_ms, running, ends_ms = 0.0, None, 0.0
    for at, gap_ms in enumerate(gaps_ms):
        now_ms += gap_ms
        while running is not None and ends_ms <= now_ms:
            scheduler.finished(running, ends_ms / 1e3 - MEDIANS_MS[running.choice.mode_id] / 1e3, ends_ms / 1e3)
            running = None
            if len(scheduler):
                running, ends_ms = begun(scheduler, ends_ms, found)
        with contextlib.suppress(InfeasibleBudget, QueueFull):
            offer(scheduler, at, now_ms=now_ms, budget_ms=budget_ms)
        if running is None and len(scheduler):
            running, ends_ms = begun(scheduler, now_ms, found)
    return found


def begun(scheduler: "Scheduler[int]", now_ms: float, found: List[Optional[str]]) -> "Tuple[Assignment[int], float]":
    assignment = scheduler.next(now_ms / 1e3)
    assert isinstance(assignment, Assignment)
    for job in assignment.jobs:
        found[job.work] = assignment.choice.mode_id
    return assignment, now_ms + MEDIANS_MS[assignment.choice.mode_id]


@pytest.mark.parametrize("budget_ms", [10_000.0, 60_000.0])
def test_a_queue_that_fills_before_its_budgets_bind_makes_modes_hurry(bundle: Bundle, budget_ms: float) -> None:
    draw = random.Random(0)
    gaps_ms = [draw.expovariate(1 / 16.7) for _ in range(3000)]  # sixty a second: the slowest mode answers ten
    found = play(make(bundle, max_queue=32), gaps_ms, budget_ms)[1500:]
    assert found.count(None) <= 0.02 * len(found)
    assert found.count("m1") > 0.5 * len(found)  # hurried no more than need be


def test_a_power_budget_goes_by_profiles_that_were_measured_again(bundle: Bundle) -> None:
    scheduler = make(bundle, power=PowerBudget(3.0, 60.0, 2.0))  # 100 mJ each, as above
    dearer = {name: profile(p50_ms, 1.25 * ENERGIES_MJ[name]) for name, p50_ms in MEDIANS_MS.items()}
    chosen = []
    for at in range(1800):
        if at == 600:
            scheduler.controller.recalibrate(dearer)
        offer(scheduler, at, now_ms=at * 100.0)
        chosen.append(run(scheduler, at * 100.0).choice.mode_id)
    spent_mj = sum(1.25 * ENERGIES_MJ[mode_id] for mode_id in chosen[1200:])
    assert spent_mj == pytest.approx(60_000.0, rel=0.1)
    assert set(chosen[1200:]) == {"m1", "m2"}


def test_a_failed_run_frees_the_engine_and_teaches_nothing(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0)
    scheduler.next(0.0)
    scheduler.ended()
    offer(scheduler, 1, budget_ms=50.0)
    assert scheduler.controller.slowdown.factor == 1.0


def test_late_work_is_accepted_behind_those_it_would_harm(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0, budget_ms=15.0, mode="m1")
    offer(scheduler, 1, budget_ms=14.0, mode="m1", on_miss="late")
    assert works(scheduler) == [0, 1]


def test_late_work_whose_budget_is_over_gives_way_to_what_can_still_be_met(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0, budget_ms=14.0, on_miss="late")
    offer(scheduler, 1, budget_ms=60.0)
    assert works(scheduler, now_ms=30.0) == [1, 0]


def test_those_behind_late_work_are_protected_too(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0, budget_ms=14.0, mode="m1", on_miss="late")
    offer(scheduler, 1, budget_ms=21.5, mode="m1")
    with pytest.raises(InfeasibleBudget, match="accepted before would then miss"):
        offer(scheduler, 2, budget_ms=13.0, mode="m1")


def test_a_run_that_is_overdue_is_not_taken_for_a_free_engine(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0, mode="m0")
    assert isinstance(scheduler.next(0.0), Assignment)
    with pytest.raises(InfeasibleBudget):
        offer(scheduler, 1, now_ms=500.0, budget_ms=100.0)


def test_a_refusal_says_how_long_the_engine_is_taken(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0)
    assert isinstance(scheduler.next(0.0), Assignment)
    with pytest.raises(InfeasibleBudget) as caught:
        offer(scheduler, 1, budget_ms=50.0)
    assert caught.value.retry_after_ms == pytest.approx(100.0, rel=0.2)


def test_impossible_requests_are_no_traffic(scheduler: "Scheduler[int]") -> None:
    for at in range(100):
        with pytest.raises(BudgetImpossible):
            offer(scheduler, at, now_ms=10.0 * at, budget_ms=0.5)
    assert scheduler._outlook._arrivals.traffic(scheduler.controller.forecast(1)) is None


def test_time_that_passes_without_requests_is_counted(bundle: Bundle) -> None:
    power = PowerBudget.battery(10.0, 10.0, 0.5, 0.0)
    scheduler = make(bundle, power=power)
    for second in range(2 * 3600):
        scheduler.tick(float(second))
    assert power.state.remaining_wh == pytest.approx(9.0, rel=0.02)
    assert power.state.low is not None  # planned, although nothing came


def test_only_who_waited_behind_others_counts_as_missed_for_want_of_room(scheduler: "Scheduler[int]") -> None:
    arrivals = scheduler._outlook._arrivals
    offer(scheduler, 0, budget_ms=150.0)
    before = arrivals.answer
    run(scheduler, 0.0, 2.0)  # 200 ms: late, but nobody was before it
    assert arrivals.answer == before
    offer(scheduler, 1, now_ms=300.0, budget_ms=150.0)
    offer(scheduler, 2, now_ms=300.0, budget_ms=150.0)
    run(scheduler, 300.0)
    between = arrivals.answer
    run(scheduler, 400.0, 20.0)
    assert arrivals.answer > between


def test_a_mode_chosen_anew_keeps_the_power_budget(bundle: Bundle) -> None:
    scheduler = make(bundle, power=PowerBudget(3.0, 60.0, 2.0))
    for at in range(1200):
        offer(scheduler, at, now_ms=at * 100.0)
        run(scheduler, at * 100.0)
    chosen = set()
    for at in range(1200, 1300):
        offer(scheduler, at, now_ms=at * 100.0)
        found = scheduler.next(at / 10)
        assert isinstance(found, Assignment)
        again = scheduler.again(found, at / 10)
        chosen.add(again.choice.mode_id)
        scheduler.finished(again, at / 10, at / 10 + MEDIANS_MS[again.choice.mode_id] / 1e3)
    assert "m1" in chosen


def test_what_a_meter_reads_of_a_run_corrects_its_mode(scheduler: "Scheduler[int]") -> None:
    for at in range(50):
        offer(scheduler, at, now_ms=200.0 * at)
        found = scheduler.next(0.2 * at)
        assert isinstance(found, Assignment)
        scheduler.finished(found, 0.2 * at, 0.2 * at + 0.1, energy_mj=260.0 + 0.01 * (at % 7))
    energies = scheduler.controller.forecast(1).energies_mj
    assert energies[scheduler.controller.predictor.index["m2"]] == pytest.approx(260.0, rel=0.02)


@pytest.mark.parametrize("budget_ms", [None, 130.0, 12.0, 1.3])
@pytest.mark.parametrize("later_ms", [0.0, 0.4, 4.0, 30.0])
def test_a_job_that_found_nobody_before_it_gets_what_choosing_anew_would_give(
    bundle: Bundle, budget_ms: Optional[float], later_ms: float
) -> None:
    kept, anew = make(bundle), make(bundle)
    for scheduler in (kept, anew):
        job = offer(scheduler, 0, budget_ms=budget_ms, on_miss="late")
        assert job.early is not None
        if scheduler is anew:
            job.early = None
    first, second = kept.next(later_ms / 1e3), anew.next(later_ms / 1e3)
    assert isinstance(first, Assignment)
    assert isinstance(second, Assignment)
    assert (first.choice.mode_id, first.choice.reason, first.slowdown) == (
        second.choice.mode_id,
        second.choice.reason,
        second.slowdown,
    )
    assert (first.decided_s, first.queued, first.rows) == (second.decided_s, second.queued, second.rows)


def test_who_found_nobody_before_it_is_chosen_for_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = make(bundle)
    offer(scheduler, 0, budget_ms=130.0)
    monkeypatch.setattr(scheduler.controller, "choose", None)
    assert isinstance(scheduler.next(0.001), Assignment)


def test_what_was_chosen_as_a_job_came_is_not_used_once_more_is_known(bundle: Bundle) -> None:
    scheduler = make(bundle)
    offer(scheduler, 0, budget_ms=130.0)
    for _ in range(30):
        scheduler.controller.observe("m2", 300.0, 1, 0.0)  # three times as slow as it was thought to be
    found = scheduler.next(0.001)
    assert isinstance(found, Assignment)
    assert found.choice.mode_id == "m1"


def test_what_was_chosen_as_a_job_came_is_not_used_when_its_mode_has_gone(bundle: Bundle) -> None:
    scheduler = make(bundle)
    offer(scheduler, 0, budget_ms=130.0)
    found = scheduler.next(0.001, Residency(resident=frozenset(("m0", "m1"))))
    assert isinstance(found, Assignment)
    assert found.choice.mode_id == "m1"


def test_one_that_comes_while_another_waits_is_chosen_for_when_it_runs(scheduler: "Scheduler[int]") -> None:
    offer(scheduler, 0)
    assert offer(scheduler, 1).early is None
