"""What the engine is given to run, and what it ran."""

from dataclasses import dataclass
from typing import Generic, NamedTuple, Tuple

from wenet_runtime.admission import Job, Work
from wenet_runtime.policy import Choice


@dataclass(frozen=True)
class Assignment(Generic[Work]):
    """Jobs that run now, in one batch, in the mode that was chosen for them.

    `queued` is how many waited when it was decided, these included; `slowdown` the factor of the mode's class.
    """

    jobs: Tuple[Job[Work], ...]
    rows: int
    choice: Choice
    decided_s: float
    queued: int = 1
    slowdown: float = 1.0


class Part(NamedTuple):
    """A mode's share of what an assignment ran: a cascade runs two."""

    mode_id: str
    rows: int
    ms: float
