"""The deadline queue: priority, then the earliest deadline, then arrival; bounded; anything may be taken out."""

import math
from typing import Any, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenet_runtime.admission import DeadlineQueue, Job
from wenet_runtime.budget import Budget, Deadline, RequestOptions
from wenet_runtime.errors import QueueFull


def job(work: Any, *, budget_ms: Optional[float] = None, **options: Any) -> "Job[Any]":
    wanted = RequestOptions(budget=Budget(budget_ms), **options)
    return Job(work, 1, wanted, Deadline(0.0, wanted.effective_ms), 0.0)


def drained(queue: "DeadlineQueue[Any]") -> List[Any]:
    """The work, most urgent first."""
    found = []
    while queue.first is not None:
        found.append(queue.first.work)
        queue.remove(queue.first)
    return found


def test_priority_then_deadline_then_arrival() -> None:
    queue: DeadlineQueue[str] = DeadlineQueue(9)
    for one in (
        job("last", priority=3, budget_ms=1.0),
        job("without a deadline"),
        job("soon", budget_ms=10.0),
        job("sooner", budget_ms=5.0),
        job("as soon", budget_ms=10.0),
        job("first", priority=1),
    ):
        queue.put(one)
    assert drained(queue) == ["first", "sooner", "soon", "as soon", "without a deadline", "last"]


def test_a_full_queue_refuses() -> None:
    queue: DeadlineQueue[int] = DeadlineQueue(2)
    queue.put(job(0))
    queue.put(job(1))
    with pytest.raises(QueueFull, match="2 requests wait already"):
        queue.put(job(2))
    assert len(queue) == 2


def test_the_last_priority_leaves_room_for_the_others() -> None:
    queue: DeadlineQueue[int] = DeadlineQueue(8)
    for at in range(6):
        queue.put(job(at, priority=3))
    with pytest.raises(QueueFull, match="6 requests wait already: the rest of the queue is for priority 1 and 2"):
        queue.put(job(6, priority=3))
    queue.put(job(6, priority=2))
    queue.put(job(7, priority=1))
    with pytest.raises(QueueFull, match="8 requests wait already: send again later"):
        queue.put(job(8, priority=1))
    small: DeadlineQueue[int] = DeadlineQueue(1)
    small.put(job(0, priority=3))


def test_a_place_counts_those_that_would_run_before() -> None:
    queue: DeadlineQueue[int] = DeadlineQueue(9)
    for at, budget_ms in enumerate((5.0, 10.0, 10.0, 20.0)):
        queue.put(job(at, budget_ms=budget_ms))
    assert [queue.place(job(9, budget_ms=ms)) for ms in (1.0, 5.0, 10.0, 15.0, 99.0)] == [0, 1, 3, 3, 4]
    assert queue.place(job(9, budget_ms=99.0, priority=1)) == 0
    assert queue.place(job(9)) == 4


def test_what_does_not_wait_cannot_be_taken_out() -> None:
    queue: DeadlineQueue[int] = DeadlineQueue(9)
    inside, outside = job(0, budget_ms=5.0), job(1, budget_ms=5.0)
    queue.put(inside)
    assert not queue.remove(outside)
    assert queue.remove(inside)
    assert not queue.remove(inside)
    assert queue.first is None


def test_late_work_ends_with_the_protocol_s_deadline_alone() -> None:
    assert job(0, budget_ms=5.0).ends_s == 0.005
    assert job(0, budget_ms=5.0, on_miss="late").ends_s == math.inf
    assert job(0, budget_ms=5.0, protocol_ms=9.0, on_miss="late").ends_s == 0.009
    assert job(0).ends_s == math.inf


@given(st.lists(st.tuples(st.integers(1, 3), st.one_of(st.none(), st.floats(1.0, 9.0)), st.booleans()), max_size=20))
def test_whatever_is_put_and_taken_out_the_rest_stays_in_order(steps: Any) -> None:
    queue: DeadlineQueue[int] = DeadlineQueue(99)
    jobs = [job(at, priority=priority, budget_ms=ms) for at, (priority, ms, _) in enumerate(steps)]
    for one in jobs:
        queue.put(one)
    for one, (_, _, gone) in zip(jobs, steps):
        if gone:
            assert queue.remove(one)
    kept = [one for one, (_, _, gone) in zip(jobs, steps) if not gone]
    wanted = sorted(kept, key=lambda one: (one.options.priority, one.deadline.at_s, one.work))
    assert drained(queue) == [one.work for one in wanted]
