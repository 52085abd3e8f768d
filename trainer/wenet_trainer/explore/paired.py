"""Two configurations on the same images: how much they differ, and whether that can be chance."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from wenet_trainer.errors import ExploreError


@dataclass(frozen=True)
class Difference:
    """One accuracy less another, on the same images.

    Attributes:
        value: 0–1.
        standard_error: of the value.
        p: how probable a difference at least as lopsided is where both are equally accurate, two-sided.
        only_ours, only_theirs: images that one gets right and the other wrong.
    """

    value: float
    standard_error: float
    p: float
    only_ours: int
    only_theirs: int


def compare(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], origins: NDArray[np.int64] | None = None) -> Difference:
    """Compare two configurations image by image, which is several times as sharp as comparing two accuracies.

    With b and c images that only the one or the other gets right, the difference of n is (b - c) / n, its standard
    error sqrt(b + c - (b - c)² / n) / n, and p that of McNemar's exact test: b of b + c fair coins.
    Where images are views of an original, the originals are the units of both: the error sums over each one's
    views, and p counts the originals that favour the one or the other (then it is the exact sign test).

    Args:
        ours: (N,) which images are right.
        theirs: (N,) the same images.
        origins: (N,) the original each image is a view of; None when every image has its own.

    Raises:
        ExploreError: they are not of the same images, or of none.
    """
    if (
        ours.shape != theirs.shape
        or ours.ndim != 1
        or not len(ours)
        or (origins is not None and len(origins) != len(ours))
    ):
        raise ExploreError(
            f"answers of shapes {ours.shape} and {theirs.shape} cannot be compared: give one answer for each of the "
            "same images, at least one, and as many origins"
        )
    gains = ours.astype(np.int64) - theirs.astype(np.int64)
    value = float(gains.mean())
    sums, views = gains, np.ones(len(gains), np.int64)
    if origins is not None:
        _, index = np.unique(origins, return_inverse=True)
        views = np.bincount(index)
        sums = np.bincount(index, weights=gains).astype(np.int64)
    error = sqrt(float(((sums - value * views) ** 2).sum())) / len(gains)
    p = _fair_coins(int((sums > 0).sum()), int((sums < 0).sum()))
    return Difference(value, error, p, int((gains > 0).sum()), int((gains < 0).sum()))


def _fair_coins(heads: int, tails: int) -> float:
    """How probable it is that so many fair coins fall at least as unevenly; exact, in whole numbers."""
    coins = heads + tails
    ways = term = 1
    for number in range(min(heads, tails)):
        term = term * (coins - number) // (number + 1)
        ways += term
    return min(1.0, 2 * ways / (1 << coins))
