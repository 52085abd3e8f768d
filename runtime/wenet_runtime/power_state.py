"""What a power or battery budget last planned and what it noticed, for the log."""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class PowerState:
    """As of one instant.

    Attributes:
        verdict: `free` (the budget binds nothing), `binding`, `unreachable` (even the cheapest mode exceeds it),
            `unknown` (no mode's energy is known), `ended` (the battery's hours are over).
        power_w: the average that may be taken from now on, of the whole board.
        spent_w: the average of the last window, likewise; None before anything passed.
        rate_per_s: rows per second, as estimated.
        credit_mj: saved (above 0) or owed.
        remaining_wh: of a battery; None without one.
        low, high, share: the mix; None where there is none.
        factor: measured over profiled energy.
        distrusted: readings of the meter that were not believed.
        unpriced: runs of which neither estimate nor credible reading was there, charged as a usual run.
        clock_jumps: steps of the clock that were not believed.
        unknown_modes: offered modes without a possible energy.
    """

    verdict: str
    power_w: float
    spent_w: Optional[float]
    rate_per_s: float
    credit_mj: float
    remaining_wh: Optional[float]
    low: Optional[str]
    high: Optional[str]
    share: Optional[float]
    factor: float
    distrusted: int
    unpriced: int
    clock_jumps: int
    unknown_modes: int
