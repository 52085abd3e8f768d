"""What belongs to one bundle while it is served."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Optional

from wenet_runtime.builder import DeviceCache
from wenet_runtime.bundle import Bundle
from wenet_runtime.power_budget import PowerBudget
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.decisions import Decisions
from wenet_runtime.service.heads import Heads
from wenet_runtime.service.planner import Planner
from wenet_runtime.service.statistics import Statistics
from wenet_runtime.service.tally import Tally


@dataclass(frozen=True)
class Serving:
    """One bundle being served.

    It is replaced as a whole, never changed: a request keeps the one that it was admitted with from its beginning
    to its end, whatever is served by then.

    Args:
        bundle: what is served.
        runtime: answers from its modes.
        decisions: writes down what that runtime decided.
        planner: plans for that runtime; None if nothing does.
        cache: keeps what is measured of its modes; None if nothing does.
        power: its power budget, which is handed on to the next bundle; None without.
        tally: how its requests end.
        statistics: how often and how long its modes worked.
        heads: what the heads of its requests say.
    """

    bundle: Bundle
    runtime: Runtime
    decisions: Decisions
    planner: Optional[Planner] = None
    cache: Optional[DeviceCache] = None
    power: Optional[PowerBudget] = None
    tally: Tally = field(default_factory=Tally)
    statistics: Statistics = field(default_factory=Statistics)
    heads: Heads = field(default_factory=Heads)

    def close(self, timeout_s: float) -> bool:
        """Finish accepted work and free the engines; False if that took longer."""
        with ExitStack() as stack:  # each is closed whatever the other does
            if self.planner is not None:
                stack.callback(self.planner.close)
            return self.runtime.close(timeout_s)
