"""No meter: energy is unknown, and said to be."""

from typing import Optional

from wenet_runtime.meters.base import Power


class NoMeter:
    """Answers that it does not know."""

    source = "none"
    idle_w: Optional[float] = None

    def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
        """Unknown."""
        del start_s, end_s
        return None

    def power(self) -> Optional[Power]:
        """Unknown."""
        return None

    def close(self) -> None:
        """Nothing runs."""
