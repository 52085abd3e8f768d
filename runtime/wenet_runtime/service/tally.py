"""How the requests of one bundle end: how many are under way, and how often their budgets held of late."""

from collections import deque
from typing import Deque, NamedTuple, Optional

from wenet_runtime.budget import RequestOptions

KEPT = 1000  # verdicts; what happened before them says little about now
MISSES = frozenset(("deadline-infeasible", "budget-impossible", "deadline-exceeded", "queue-full"))


class Hits(NamedTuple):
    """Of so many requests with a budget, in how many it held."""

    met: int
    of: int


class Tally:
    """Counts on the event loop alone, so without a lock.

    Attributes:
        open: requests that were given this bundle and have no reply yet: until there are none it must not be closed.
        errors: requests that failed through nobody's fault but ours.
    """

    def __init__(self) -> None:
        self.open = 0
        self.errors = 0
        self._verdicts: Deque[bool] = deque(maxlen=KEPT)

    def begun(self) -> None:
        """A request was given this bundle."""
        self.open += 1

    def ended(self) -> None:
        """It has its reply, or needs none."""
        self.open -= 1

    def answered(self, met: Optional[bool]) -> None:
        """A mode answered; `met` is whether the budgets held, None if there were none."""
        if met is not None:
            self._verdicts.append(met)

    def failed(self, slug: str, options: Optional[RequestOptions]) -> None:
        """A problem was the answer.

        Args:
            slug: of the problem.
            options: what the request asked for; None if it did not come so far.
        """
        if slug == "internal":
            self.errors += 1
        if options is None or slug not in MISSES:
            return
        if options.effective_ms is not None or options.budget.energy_mj is not None:
            self._verdicts.append(False)

    @property
    def hits(self) -> Hits:
        """Of the latest requests with a budget; one that was refused because of it missed it."""
        return Hits(sum(self._verdicts), len(self._verdicts))
