"""What belongs to one bundle while it is served."""

from dataclasses import dataclass, field

from wenet_runtime.bundle import Bundle
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.decisions import Decisions
from wenet_runtime.service.statistics import Statistics


@dataclass(frozen=True)
class Serving:
    """One bundle being served.

    It is replaced as a whole, never changed: a request keeps the one that it was admitted with from its beginning
    to its end, whatever is served by then.

    Args:
        bundle: what is served.
        runtime: answers from its modes.
        decisions: writes down what that runtime decided.
        statistics: how often and how long its modes worked.
    """

    bundle: Bundle
    runtime: Runtime
    decisions: Decisions
    statistics: Statistics = field(default_factory=Statistics)
