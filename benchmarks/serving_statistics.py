"""Figures of repeats: a mean with its 95 % interval, percentiles of samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Student's t at 97.5 %, by degrees of freedom from 1 on; beyond the table the normal's.
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
NORMAL_975 = 1.960


@dataclass(frozen=True)
class Mean:
    """A mean over repeats and half of its 95 % interval; NaN where one repeat tells nothing of the spread."""

    value: float
    half: float
    repeats: int

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.half:.2g} (95 %, {self.repeats} repeats)"


def mean_of(values: Sequence[float]) -> Mean:
    """Of independent repeats. Raises `ValueError` without any."""
    if not values:
        raise ValueError("no repeats")
    count = len(values)
    if count == 1:
        return Mean(float(values[0]), math.nan, 1)
    t = T_975[count - 2] if count - 2 < len(T_975) else NORMAL_975
    return Mean(float(np.mean(values)), float(t * np.std(values, ddof=1) / math.sqrt(count)), count)


def percentile(values: Sequence[float], share: float) -> float:
    """Of samples, 0–100."""
    return float(np.percentile(values, share))


def rounded(values: Sequence[float], digits: int = 4) -> list[float]:
    """For a file that people may open."""
    return [round(float(one), digits) for one in values]
