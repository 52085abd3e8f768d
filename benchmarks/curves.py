"""Accuracy over multiply-accumulates: interpolated hulls, operating points, and differences with their errors."""

from collections.abc import Sequence
from math import nan, sqrt

import numpy as np
from numpy.typing import NDArray

from benchmarks.trained import Mode

POINTS = 25


def curve(modes: Sequence[Mode]) -> list[tuple[float, float]]:
    """The points of a trained network's upper hull, by ascending cost: chosen on validation, as the test found them.

    A configuration below the line between a cheaper and a dearer one is no point: a mix of these two
    (some requests by the one, some by the other) is better at its cost. Nothing is chosen by test accuracy.
    """
    hull: list[Mode] = []
    for mode in sorted(modes, key=lambda mode: (mode.macs, -mode.validation)):
        if mode.test is None or (hull and mode.validation <= hull[-1].validation):
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], mode):
            hull.pop()
        hull.append(mode)
    return [(float(mode.macs), float(mode.test or 0.0)) for mode in hull]


def _slope(one: Mode, other: Mode) -> float:
    """Accuracy gained for each multiply-accumulate from one to the other, on validation."""
    return (other.validation - one.validation) / (other.macs - one.macs)


def common_range(macs: Sequence[Sequence[int]]) -> tuple[float, float]:
    """From the dearest of the cheapest candidates to the cheapest of the dearest: known before training."""
    return float(max(min(one) for one in macs)), float(min(max(one) for one in macs))


def operating_points(low: float, high: float) -> NDArray[np.float64]:
    """A uniform grid of costs, both ends included."""
    return np.linspace(low, high, POINTS)


def at(points: Sequence[tuple[float, float]], costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Accuracy at each cost, interpolated linearly between the curve's points; flat beyond its ends."""
    return np.interp(costs, [cost for cost, _ in points], [accuracy for _, accuracy in points])


def paired(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> tuple[float, float]:
    """Difference of two accuracies on the same images and its standard error, in percentage points."""
    difference = ours.astype(np.float64) - theirs
    return 100 * float(difference.mean()), 100 * float(difference.std(ddof=1)) / sqrt(len(difference))


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error over seeds; of one seed the error is not known: not a number."""
    found = np.asarray(values)
    return float(found.mean()), float(found.std(ddof=1) / sqrt(len(found))) if len(found) > 1 else nan
