"""A simulated meter: a constant power while the engine is busy. Shown as `sim` wherever it is read."""

from typing import Optional

from wenet_runtime.meters.base import OK, MeterState, Power

BUSY_W, IDLE_W = 5.0, 2.0  # about a small board; invented, not measured


class SimMeter:
    """Energy = constant power × time.

    Args:
        busy_w: the simulated power of a busy device, W.
        idle_w: that of an idle one, W.
    """

    source = "sim"

    def __init__(self, busy_w: float = BUSY_W, idle_w: float = IDLE_W) -> None:
        self._busy_w = busy_w
        self.idle_w: Optional[float] = idle_w

    def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
        """Constant power over the window, mJ."""
        return max(0.0, end_s - start_s) * self._busy_w * 1e3

    def power(self) -> Optional[Power]:
        """The simulated power, always fresh."""
        return Power(self._busy_w, "sim", 0.0)

    def state(self) -> MeterState:
        """Always there, and made up."""
        return MeterState(OK, "simulated: a constant power while the engine is busy")

    def close(self) -> None:
        """Nothing runs."""
