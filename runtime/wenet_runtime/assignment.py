"""What the engine is given to run, and what it ran."""

from dataclasses import dataclass
from typing import Generic, NamedTuple, Optional, Tuple

from wenet_runtime.admission import Job, Work
from wenet_runtime.forecast import Forecast
from wenet_runtime.policy import Choice
from wenet_runtime.pool import Residency


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


class Early(NamedTuple):
    """The choice that admitted a job, when that was, and what it went by."""

    choice: Choice
    forecast: Forecast
    residency: Optional[Residency]
    at_s: float


class Part(NamedTuple):
    """A mode's share of what an assignment ran: a cascade runs two."""

    mode_id: str
    rows: int
    ms: float
