"""What one mode costs on one device."""

from dataclasses import dataclass
from typing import Any, List, Mapping, Optional

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Profile:
    """What one mode costs on one device, for one row. Milliseconds and millijoules.

    `threads` is how many it was found to be quickest with; None where that was not asked.
    `batch_ms` is the median time of a whole batch by its rows; None where none was asked.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    runs: int
    energy_mj: Optional[float] = None
    energy_source: str = "none"
    threads: Optional[int] = None
    batch_ms: Optional[Mapping[int, float]] = None

    def median_ms(self, rows: int) -> float:
        """The median time of a batch: as measured, in proportion between and beyond what was measured, ms."""
        if rows == 1 or not self.batch_ms:
            return self.p50_ms * rows
        known = {1: self.p50_ms, **self.batch_ms}
        if rows in known:
            return known[rows]
        below = max(size for size in known if size < rows)
        above = min((size for size in known if size > rows), default=None)
        if above is None:
            return known[below] * rows / below
        return known[below] + (known[above] - known[below]) * (rows - below) / (above - below)


def profile_of(
    samples_ms: "List[float] | NDArray[Any]", energy_mj: "List[float] | None" = None, energy_source: str = "none"
) -> Profile:
    """Summarise samples: percentiles of latency, median of energy."""
    p50, p95, p99 = (float(value) for value in np.percentile(np.asarray(samples_ms, dtype=float), (50, 95, 99)))
    energy = float(np.median(energy_mj)) if energy_mj else None
    return Profile(p50, p95, p99, len(samples_ms), energy, energy_source if energy is not None else "none")
