"""The deadline queue: by priority, then earliest deadline first; bounded; it knows how long its work takes."""

import heapq
import itertools
import threading
from dataclasses import dataclass, field
from typing import Generic, List, Optional, Tuple, TypeVar

from wenet_runtime.errors import QueueFull

Work = TypeVar("Work")


@dataclass(order=True)
class _Entry(Generic[Work]):
    priority: int
    at_s: float
    number: int
    work: Work = field(compare=False)
    expected_ms: float = field(compare=False)


class Woken(Exception):
    """Nothing waits, but somebody wants the getting thread's attention."""


class DeadlineQueue(Generic[Work]):
    """Waiting requests. Any thread may put; one thread gets.

    Args:
        capacity: how many may wait.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._heap: List[_Entry[Work]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._woken = False

    def put(self, work: Work, *, priority: int, at_s: float, expected_ms: float) -> None:
        """Add a request.

        Raises:
            QueueFull: `capacity` requests wait already.
        """
        with self._changed:
            if len(self._heap) >= self._capacity:
                raise QueueFull(f"{self._capacity} requests wait already: send again later, or raise --max-queue")
            heapq.heappush(self._heap, _Entry(priority, at_s, next(self._numbers), work, expected_ms))
            self._changed.notify()

    def get(self) -> Optional[Work]:
        """The most urgent request, waiting for one; None once the queue is closed and empty.

        Raises:
            Woken: `wake` was called while nothing waited.
        """
        with self._changed:
            while not self._heap:
                if self._closed:
                    return None
                if self._woken:
                    self._woken = False
                    raise Woken
                self._changed.wait()
            return heapq.heappop(self._heap).work

    def wake(self) -> None:
        """Make `get` raise `Woken` if nothing waits."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def wait_ms(self, *, priority: int, at_s: float) -> float:
        """Expected time of everything that would run before a request of this urgency."""
        urgency: Tuple[int, float] = (priority, at_s)
        with self._changed:
            return sum(one.expected_ms for one in self._heap if (one.priority, one.at_s) <= urgency)

    def discard(self, work: Work) -> None:
        """Take a request out that nobody waits for any more. One that is already gone is no error."""
        with self._changed:
            kept = [one for one in self._heap if one.work is not work]
            if len(kept) != len(self._heap):
                heapq.heapify(kept)
                self._heap = kept

    def __len__(self) -> int:
        return len(self._heap)

    def close(self) -> None:
        """Let `get` return None once everything waiting has been taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
