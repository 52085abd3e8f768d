"""What a layer table is made from, and how well it predicts: measured configurations and relative errors."""

import math
from dataclasses import dataclass
from typing import Iterable, Mapping, Optional

import numpy as np


@dataclass(frozen=True)
class Row:
    """One configuration, measured whole and interleaved with the full network.

    Attributes:
        ratio: of its time to the full network's, both without what other work added.
        latency_ms, full_ms: its median and the full network's beside it.
        full_quiet_ms: the full network's without what other work added; what drift is told by.
        runs: of each.
        energy_mj, full_energy_mj: of one image; None where no meter answered.
    """

    groups: Mapping[str, int]
    ratio: float
    latency_ms: float
    full_ms: float
    full_quiet_ms: float
    runs: int
    energy_mj: Optional[float] = None
    full_energy_mj: Optional[float] = None


@dataclass(frozen=True)
class TableError:
    """How far predictions lie from measurements, as shares of the measured.

    Attributes:
        median, p95: over configurations that were not used to predict them.
        median_high: the median's upper bound, with 97.5 % confidence.
        rows: how many configurations.
    """

    median: float
    p95: float
    median_high: float
    rows: int

    @classmethod
    def of(cls, errors: Iterable[float]) -> "TableError":
        """From relative errors of either sign; at least one."""
        sizes = np.sort(np.abs(np.asarray(list(errors), dtype=np.float64)))
        # The order statistic that the median exceeds once in forty times, by the normal approximation.
        high = min(len(sizes) - 1, math.ceil(len(sizes) / 2 + 0.98 * math.sqrt(len(sizes))))
        median, p95 = (round(float(one), 6) for one in np.percentile(sizes, (50, 95)))
        return cls(median, p95, round(float(sizes[high]), 6), len(sizes))


def impossible(row: Row, levels: Mapping[str, Mapping[int, float]]) -> Optional[str]:
    """What in a row that was read cannot have been measured, in words; None when all may have been.

    Args:
        row: the row.
        levels: the layers and groups that it must keep to.
    """
    times = (row.ratio, row.latency_ms, row.full_ms, row.full_quiet_ms)
    if not all(math.isfinite(one) and one > 0 for one in times) or row.runs < 1:
        return "holds a time that is none"
    energies = [one for one in (row.energy_mj, row.full_energy_mj) if one is not None]
    if not all(math.isfinite(one) and one >= 0 for one in energies):
        return "holds an energy that is none"
    if set(row.groups) != set(levels) or any(count not in levels[name] for name, count in row.groups.items()):
        return "has other layers or groups than the terms"
    return None
