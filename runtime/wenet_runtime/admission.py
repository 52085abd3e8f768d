"""The deadline queue: by priority, then earliest deadline first; bounded. No threads: who shares it locks it."""

import itertools
from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Any, Generic, Iterator, List, Optional, Tuple, TypeVar

from wenet_runtime.budget import Deadline, RequestOptions
from wenet_runtime.errors import QueueFull

Work = TypeVar("Work")
LAST_PRIORITY = 3


@dataclass(eq=False)
class Job(Generic[Work]):
    """One request that is offered, waits or runs.

    Attributes:
        work: whatever its owner wants back.
        rows: of its batch.
        submitted_s: when it was offered, monotonic.
        client: whom the cascade's tokens are charged to.
        kind: only jobs of equal kind may run in one batch; None for one that runs alone.
        fastest_at: the fastest mode it accepts, as a place in a forecast.
        company_s: until when it waits for company; None before it is asked.
        waited: whether others were before it when it came.
        early: the choice that admitted it, see `early.Early`; None where others were before it.
        behind: it is `late` work that gives way to all that can still be met.
    """

    work: Work
    rows: int
    options: RequestOptions
    deadline: Deadline
    submitted_s: float
    client: str = ""
    kind: Any = None
    fastest_at: int = 0
    company_s: Optional[float] = None
    waited: bool = False
    early: Any = None
    behind: bool = False
    number: int = -1

    @property
    def urgency(self) -> Tuple[int, float]:
        """Its priority, then its deadline."""
        return self.options.priority, float("inf") if self.behind else self.deadline.at_s

    @property
    def ends_s(self) -> float:
        """When it must not be begun any more: its deadline; `late` work runs after its budget, not a protocol's."""
        if self.options.on_miss != "late":
            return self.deadline.at_s
        protocol_ms = self.options.protocol_ms
        return float("inf") if protocol_ms is None else self.deadline.start_s + protocol_ms / 1e3


_Entry = Tuple[int, float, int, Job[Work]]


class DeadlineQueue(Generic[Work]):
    """Waiting jobs, most urgent first.

    Args:
        capacity: how many may wait.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._entries: List[_Entry[Work]] = []
        self._numbers = itertools.count()

    def put(self, job: Job[Work]) -> None:
        """Add a job.

        Raises:
            QueueFull: `capacity` jobs wait already; three quarters of that where it is of the last priority.
        """
        waiting = len(self._entries)
        if waiting >= self.capacity:
            raise QueueFull(f"{waiting} requests wait already: send again later, or raise --max-queue")
        if job.options.priority == LAST_PRIORITY and waiting >= max(1, self.capacity * 3 // 4):
            raise QueueFull(f"{waiting} requests wait already: the rest of the queue is for priority 1 and 2")
        job.number = next(self._numbers)
        insort(self._entries, (*job.urgency, job.number, job))

    def place(self, job: Job[Work]) -> int:
        """How many waiting jobs would run before this one."""
        return bisect_left(self._entries, (*job.urgency, float("inf")))

    @property
    def first(self) -> Optional[Job[Work]]:
        """The most urgent job; None if none waits."""
        return self._entries[0][3] if self._entries else None

    def put_behind(self, job: Job[Work]) -> None:
        """Let a waiting job give way to all others of its priority."""
        if self.remove(job):
            job.behind = True
            insort(self._entries, (*job.urgency, job.number, job))

    @property
    def last_ends_s(self) -> float:
        """When the last job to run must have begun; of an empty queue, never."""
        return self._entries[-1][3].ends_s if self._entries else float("inf")

    def remove(self, job: Job[Work]) -> bool:
        """Take a job out; False if it does not wait (any more)."""
        key = (*job.urgency, job.number)
        at = bisect_left(self._entries, key)
        if at == len(self._entries) or self._entries[at][3] is not job:
            return False
        del self._entries[at]
        return True

    def __iter__(self) -> Iterator[Job[Work]]:
        """Most urgent first."""
        return (entry[3] for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)
