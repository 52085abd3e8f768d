"""What every meter is: it says how much energy a window of time took, and where it knows it from."""

from dataclasses import dataclass
from typing import Optional, Protocol

OK, STARTING, STALE, UNAVAILABLE = "ok", "starting", "stale", "unavailable"


@dataclass(frozen=True)
class Power:
    """One reading. `age_s` is the time since it was taken; `rail` names what was measured."""

    watts: float
    rail: str
    age_s: float


@dataclass(frozen=True)
class MeterState:
    """What a meter says of itself, for people and alerts. Unknown is said, never 0 W.

    Attributes:
        status: `ok`; `starting`, before the first reading; `stale`, when the last one is older than `stale_after_s`;
            `unavailable`, when none will come until somebody does what `detail` says.
        detail: why it is not `ok` and what to do, or what to know of its readings; empty if nothing.
        restarts: how often what it reads from was started again.
        interval_s: time between readings.
        stale_after_s: from which age on a reading says nothing.
        resolution_mw: the smallest step between readings seen so far; None before two differed.
    """

    status: str
    detail: str = ""
    restarts: int = 0
    interval_s: Optional[float] = None
    stale_after_s: Optional[float] = None
    resolution_mw: Optional[float] = None


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

    def state(self) -> MeterState:
        """Whether readings come, and if not, why and what to do. Never blocks."""
        ...

    def close(self) -> None:
        """Stop sampling."""
        ...
