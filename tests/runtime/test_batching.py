"""Requests run together only where a profile says that it pays, and only inside their slack."""

from typing import Any, List, Mapping, Optional

import pytest

from wenet_runtime.admission import Job
from wenet_runtime.assignment import Assignment
from wenet_runtime.batching import Batching
from wenet_runtime.budget import Budget, Deadline, RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.controller import Controller
from wenet_runtime.errors import InfeasibleBudget
from wenet_runtime.profile import Profile
from wenet_runtime.scheduler import Scheduler

MEDIANS_MS = {"m0": 10.0, "m1": 40.0, "m2": 100.0}
# A batch of n takes (1 + 0.25 (n - 1)) times one row's time.
GAINS: Mapping[int, float] = {2: 1.25, 4: 1.75, 8: 2.75}


def make(bundle: Bundle, gains: Optional[Mapping[int, float]] = GAINS, **how: Any) -> "Scheduler[int]":
    profiles = {
        name: Profile(
            ms, ms, ms, 100, batch_ms=None if gains is None else {rows: ms * gain for rows, gain in gains.items()}
        )
        for name, ms in MEDIANS_MS.items()
    }
    return Scheduler(Controller(bundle.modes, profiles), batching=Batching(**how))


def offer(
    scheduler: "Scheduler[int]", work: int, budget_ms: Optional[float], *, rows: int = 1, kind: Any = "", **options: Any
) -> None:
    wanted = RequestOptions(budget=Budget(budget_ms), **options)
    scheduler.submit(Job(work, rows, wanted, Deadline(0.0, wanted.effective_ms), 0.0, kind=kind), 0.0)


def next_works(scheduler: "Scheduler[int]", now_s: float = 0.0) -> List[int]:
    found = scheduler.next(now_s)
    assert isinstance(found, Assignment)
    assert found.rows == sum(job.rows for job in found.jobs)
    return [job.work for job in found.jobs]


def test_those_who_wait_run_together_where_it_is_quicker_per_row(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4)
    for work in range(6):
        offer(scheduler, work, 1000.0)
    found = scheduler.next(0.0)
    assert isinstance(found, Assignment)
    assert ([job.work for job in found.jobs], found.rows, found.choice.mode_id) == ([0, 1, 2, 3], 4, "m2")
    assert found.choice.median_ms == pytest.approx(175.0)


@pytest.mark.parametrize(
    ("gains", "max_rows"), [(None, 4), ({2: 2.0, 4: 4.0}, 4), (GAINS, 1)], ids=["unknown", "none", "off"]
)
def test_each_runs_alone_where_nothing_is_gained(bundle: Bundle, gains: Any, max_rows: int) -> None:
    scheduler = make(bundle, gains, max_rows=max_rows)
    for work in range(3):
        offer(scheduler, work, 1000.0)
    assert next_works(scheduler) == [0]


def test_a_batch_has_one_mode_the_best_that_fits_its_tightest_member(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4)
    offer(scheduler, 0, 60.0)
    for work in range(1, 4):
        offer(scheduler, work, 5000.0)
    found = scheduler.next(0.0)
    assert isinstance(found, Assignment)
    assert found.choice.mode_id == "m1"
    assert found.choice.bound_ms <= 60.0


def test_company_never_costs_the_most_urgent_its_accuracy(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=8)
    offer(scheduler, 0, 110.0)  # the best mode, alone
    offer(scheduler, 1, 5000.0)
    assert next_works(scheduler) == [0]


def test_together_where_alone_those_behind_would_leave_less_room(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4)
    for work in range(4):
        offer(scheduler, work, 180.0)
    found = scheduler.next(0.0)
    assert isinstance(found, Assignment)
    assert (found.rows, found.choice.mode_id) == (4, "m2")  # 175 ms for all; alone, 100 ms and 30 for the others


def test_what_differs_in_kind_or_shape_never_runs_together(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4)
    offer(scheduler, 0, 1000.0, kind="a")
    offer(scheduler, 1, 1000.0, kind="b")
    offer(scheduler, 2, 1000.0, kind="a")
    offer(scheduler, 3, 1000.0, kind=None)
    assert [next_works(scheduler) for _ in range(3)] == [[0, 2], [1], [3]]


def test_rows_of_all_members_count(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4)
    offer(scheduler, 0, 1000.0, rows=3)
    offer(scheduler, 1, 1000.0, rows=2)
    assert [next_works(scheduler) for _ in range(2)] == [[0], [1]]


def test_waiting_for_company_ends_after_the_delay(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4, max_delay_ms=20.0)
    offer(scheduler, 0, 1000.0)
    assert scheduler.next(0.0) == pytest.approx(0.020)
    offer(scheduler, 1, 1000.0)
    assert scheduler.next(0.010) == pytest.approx(0.020)
    assert next_works(scheduler, 0.020) == [0, 1]


def test_a_full_batch_waits_no_longer(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=2, max_delay_ms=20.0)
    offer(scheduler, 0, 1000.0)
    offer(scheduler, 1, 1000.0)
    assert next_works(scheduler) == [0, 1]


def test_nobody_waits_longer_than_a_quarter_of_the_slack(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4, max_delay_ms=500.0)
    offer(scheduler, 0, 165.0)  # two rows in the best mode take 125 ms, so 40 ms are left
    assert scheduler.next(0.0) == pytest.approx(0.010)


def test_nobody_waits_so_long_that_it_loses_its_mode(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4, max_delay_ms=500.0)
    offer(scheduler, 0, 102.0)  # the best mode takes 100 ms
    assert next_works(scheduler) == [0]


def test_late_work_waits_within_its_budget_too(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4, max_delay_ms=500.0)
    offer(scheduler, 0, 165.0, on_miss="late")
    assert scheduler.next(0.0) == pytest.approx(0.010)


def test_nobody_waits_while_others_wait_that_cannot_join(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4, max_delay_ms=20.0)
    offer(scheduler, 0, 900.0, kind="a")
    assert scheduler.next(0.0) == pytest.approx(0.020)
    offer(scheduler, 1, 1000.0, kind="b")
    assert next_works(scheduler, 0.001) == [0]


def test_a_batch_never_makes_the_most_urgent_one_s_deadline_a_toss_up(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=2)
    offer(scheduler, 0, 11.0)  # the fastest mode takes 10 ms alone and 12.5 for two
    offer(scheduler, 1, 1000.0)
    found = scheduler.next(0.0)
    assert isinstance(found, Assignment)
    assert ([job.work for job in found.jobs], found.choice.reason) == ([0], "fits")


def test_what_has_ended_is_not_taken_into_a_batch(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4)
    offer(scheduler, 0, 1000.0)
    offer(scheduler, 1, 1000.0)
    offer(scheduler, 2, None, protocol_ms=50.0, priority=3)
    found = scheduler.next(0.060)
    assert isinstance(found, Assignment)
    assert [job.work for job in found.jobs] == [0, 1]


def test_nobody_waits_where_company_would_gain_nothing(bundle: Bundle) -> None:
    scheduler = make(bundle, None, max_rows=4, max_delay_ms=20.0)
    offer(scheduler, 0, 1000.0)
    assert next_works(scheduler) == [0]


def test_late_work_that_a_protocol_has_ended_is_not_taken_into_a_batch(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=4)
    offer(scheduler, 0, 5.0, on_miss="late")  # the fastest mode takes 10 ms
    offer(scheduler, 1, None, protocol_ms=50.0, priority=3, on_miss="late")
    assert next_works(scheduler, 0.060) == [0]


def test_those_who_wait_are_counted_as_the_batches_they_will_run_in(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=8)
    for work in range(16):  # one by one 160 ms in the fastest mode; in two batches 55
        offer(scheduler, work, 80.0)
    assert len(next_works(scheduler)) == 8


def test_what_runs_alone_is_counted_one_by_one(bundle: Bundle) -> None:
    scheduler = make(bundle, max_rows=8)
    for work in range(8):
        offer(scheduler, work, 80.0, kind=None)
    with pytest.raises(InfeasibleBudget):
        offer(scheduler, 8, 80.0, kind=None)
