"""The engine's present run: what runs since when, and whether it will ever end. Clocks are passed in."""

from typing import Optional

from wenet_runtime.answers import Ask
from wenet_runtime.assignment import Assignment
from wenet_runtime.faults import STUCK_S, stuck_after_s


class Present:
    """What the engine's thread is doing. Any thread may ask; only that thread changes it, or who holds the loop's lock.

    Attributes:
        requests: in the present run that have no answer yet.
        assignment: what runs; None between runs.
        moved_s: when the thread moved on last, monotonic.
        stuck_after_s: how long it may stay there.
        given_up: whether those who wait for the present run have been told that it does not end.
    """

    def __init__(self, now_s: float) -> None:
        self.requests = 0
        self.assignment: Optional[Assignment[Ask]] = None
        self.moved_s = now_s
        self.stuck_after_s = STUCK_S
        self.given_up = False

    def begin(self, assignment: "Assignment[Ask]", p99_ms: float) -> None:
        """An assignment begins, or begins again in another mode, whose p99 for a row is known."""
        self.assignment = assignment
        self.requests = len(assignment.jobs)
        self.stuck_after_s = stuck_after_s(p99_ms, assignment.rows)

    def end(self) -> None:
        """It is over; its answers are handed out."""
        self.assignment, self.given_up, self.stuck_after_s = None, False, STUCK_S

    def fail(self) -> None:
        """It is over, and nobody gets an answer from it."""
        self.end()
        self.requests = 0

    def answered(self) -> None:
        """A request of it has its answer."""
        self.requests -= 1
