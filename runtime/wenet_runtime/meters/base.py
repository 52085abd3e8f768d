"""What every meter is: it says how much energy a window of time took, and where it knows it from."""

from dataclasses import dataclass
from typing import Optional, Protocol


@dataclass(frozen=True)
class Power:
    """One reading. `age_s` is the time since it was taken; `rail` names what was measured."""

    watts: float
    rail: str
    age_s: float


class Meter(Protocol):
    """A source of power readings.

    Attributes:
        source: what stands in `WeNet-Energy-Source`: `rail:<name>`, `nvml`, `rapl`, `sim` or `none`.
        idle_w: what the whole board draws when nothing runs, W; None when unknown.
    """

    source: str
    idle_w: Optional[float]

    def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
        """Energy of a window of the monotonic clock in which the engine was busy, mJ; None when unknown."""
        ...

    def power(self) -> Optional[Power]:
        """The latest reading; None when unknown. Unknown is never 0 W."""
        ...

    def close(self) -> None:
        """Stop sampling."""
        ...
