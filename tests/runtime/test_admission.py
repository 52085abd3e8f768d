"""The deadline queue: priority, then deadline, then arrival; bounded; and it knows its work."""

import math
import threading
from typing import List, Optional

import pytest

from tests.runtime.fakes import PATIENCE_S
from wenet_runtime.admission import DeadlineQueue
from wenet_runtime.errors import QueueFull


def put(queue: "DeadlineQueue[str]", work: str, *, priority: int = 2, at_s: float = math.inf, ms: float = 1.0) -> None:
    queue.put(work, priority=priority, at_s=at_s, expected_ms=ms)


def drain(queue: "DeadlineQueue[str]") -> List[Optional[str]]:
    return [queue.get() for _ in range(len(queue))]


def test_priority_comes_first_then_deadline_then_arrival() -> None:
    queue: DeadlineQueue[str] = DeadlineQueue(10)
    put(queue, "never due, first come")
    put(queue, "never due, second come")
    put(queue, "late", at_s=9.0)
    put(queue, "soon", at_s=1.0)
    put(queue, "unimportant and due", priority=3, at_s=0.5)
    put(queue, "important", priority=1)
    wanted = ["important", "soon", "late", "never due, first come", "never due, second come", "unimportant and due"]
    assert drain(queue) == wanted


def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    queue: DeadlineQueue[str] = DeadlineQueue(2)
    put(queue, "a")
    put(queue, "b")
    with pytest.raises(QueueFull, match=r"2 requests wait already.*--max-queue"):
        put(queue, "c", priority=1)
    assert drain(queue) == ["a", "b"]


def test_the_wait_is_that_of_everything_as_urgent_or_more() -> None:
    queue: DeadlineQueue[str] = DeadlineQueue(10)
    put(queue, "a", at_s=1.0, ms=1.0)
    put(queue, "b", at_s=2.0, ms=10.0)
    put(queue, "c", priority=1, at_s=9.0, ms=100.0)
    assert queue.wait_ms(priority=2, at_s=1.5) == 101.0
    assert queue.wait_ms(priority=2, at_s=2.0) == 111.0
    assert queue.wait_ms(priority=1, at_s=1.0) == 0.0
    assert queue.wait_ms(priority=3, at_s=0.0) == 111.0


def test_discarded_work_is_gone_and_the_rest_keeps_its_order() -> None:
    queue: DeadlineQueue[str] = DeadlineQueue(10)
    for at_s, work in ((5, "5"), (1, "1"), (4, "4"), (2, "2"), (3, "3")):
        put(queue, work, at_s=at_s)
    queue.discard("1")
    queue.discard("4")
    queue.discard("never put")
    assert len(queue) == 3
    assert drain(queue) == ["2", "3", "5"]


def test_a_closed_queue_gives_what_it_has_and_then_nothing() -> None:
    queue: DeadlineQueue[str] = DeadlineQueue(10)
    put(queue, "a")
    queue.close()
    assert [queue.get(), queue.get()] == ["a", None]


def test_a_waiting_reader_is_woken_by_work_and_by_the_end() -> None:
    queue: DeadlineQueue[str] = DeadlineQueue(10)
    taken: List[Optional[str]] = []
    first = threading.Event()

    def read() -> None:
        taken.append(queue.get())
        first.set()
        taken.append(queue.get())

    reader = threading.Thread(target=read)
    reader.start()
    put(queue, "a")
    assert first.wait(PATIENCE_S)
    queue.close()
    reader.join(PATIENCE_S)
    assert not reader.is_alive()
    assert taken == ["a", None]
