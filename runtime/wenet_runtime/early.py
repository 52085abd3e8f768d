"""The choice that admitted a job to an idle engine: as it runs a moment later, choosing anew would find the same."""

from typing import NamedTuple, Optional

from wenet_runtime.forecast import Forecast
from wenet_runtime.policy import Choice
from wenet_runtime.residency import Residency

EARLY_S = 0.005  # it is as good as new for so long


class Early(NamedTuple):
    """A choice, what it went by, and when it was made, monotonic."""

    choice: Choice
    forecast: Forecast
    residency: Optional[Residency]
    at_s: float

    def holds(self, now_s: float, left_ms: float, forecast: Forecast, residency: Optional[Residency]) -> bool:
        """Whether it is what would be chosen now, with so much time left and if nobody else waits."""
        if now_s - self.at_s > EARLY_S or forecast is not self.forecast or residency is not self.residency:
            return False
        # The time left is less by now; the best of those that were in time then is so still, if it is in time.
        return self.choice.reason != "degraded" and self.choice.bound_ms <= left_ms
