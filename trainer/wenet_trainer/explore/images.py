"""Which images an exploration uses: for statistics, for the search, and for the accuracies a bundle tells."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wenet_trainer.data.base import Images, Source, normalise
from wenet_trainer.errors import ExploreError

CALIBRATION_EPOCH = 1_000_000  # views that no training epoch shows
CALIBRATION_IMAGES = 512
SEARCH_IMAGES = 2_000
FINAL_IMAGES = 5_000  # they are held in memory, one byte a pixel and colour


def calibration(source: Source) -> Tensor:
    """The training images behind every batch-norm statistic: (N, C, H, W) normalised."""
    images = source.train(CALIBRATION_EPOCH).first(CALIBRATION_IMAGES)
    return normalise(images.pixels, source.preprocess)


def digest(*parts: NDArray[Any]) -> str:
    """Tells images or labels from others of the same shape."""
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{part.shape} {part.dtype}".encode())
        found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()[:16]


def apart(source: Source, search: int | None = None) -> tuple[Images, Images]:
    """Validation images for the search, and others for the accuracies of the modes it finds.

    The best of many is best on the images it was chosen by, so it is judged on others. Views of one
    original stay together.

    Args:
        source: where they come from.
        search: how many the search wants; a third of them by default, at most `SEARCH_IMAGES`.

    Raises:
        ExploreError: nothing is left for the one or the other.
    """
    view = source.validation()
    wanted = min(SEARCH_IMAGES, len(view) // 3) if search is None else search
    images = view.first(wanted + FINAL_IMAGES)
    origins = np.arange(len(images)) if images.origins is None else images.origins
    _, first, group = np.unique(origins, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))[group]  # originals numbered as they appear
    until = np.cumsum(np.bincount(order))
    searched = order < np.searchsorted(until, wanted) + 1
    if wanted < 1 or searched.all():
        raise ExploreError(
            f"{wanted} of {len(images)} validation images for the search leave none for the modes' own accuracies: "
            "add validation images, or give fewer as --search-images"
        )
    return images.load(np.flatnonzero(searched).tolist()), images.load(np.flatnonzero(~searched).tolist())
