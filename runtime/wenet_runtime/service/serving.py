"""What belongs to one bundle while it is served."""

from dataclasses import dataclass

from wenet_runtime.bundle import Bundle
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.decisions import Decisions


@dataclass(frozen=True)
class Serving:
    """One bundle being served.

    It is replaced as a whole, never changed: a request keeps the one that it was admitted with from its beginning
    to its end, whatever is served by then.

    Args:
        bundle: what is served.
        runtime: answers from its modes.
        decisions: writes down what that runtime decided.
    """

    bundle: Bundle
    runtime: Runtime
    decisions: Decisions
