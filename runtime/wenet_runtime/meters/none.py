"""No meter: energy is unknown, and said to be."""

from typing import Optional

from wenet_runtime.meters.base import UNAVAILABLE, MeterState, Power


class NoMeter:
    """Answers that it does not know.

    Args:
        why: why there is no meter, and what to do if that is not meant.
    """

    source = "none"
    idle_w: Optional[float] = None

    def __init__(self, why: str = "no meter was asked for") -> None:
        self._why = why

    def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
        """Unknown."""
        del start_s, end_s
        return None

    def power(self) -> Optional[Power]:
        """Unknown."""
        return None

    def state(self) -> MeterState:
        """That there is none."""
        return MeterState(UNAVAILABLE, self._why)

    def close(self) -> None:
        """Nothing runs."""
