"""Decodes everything once, so that a damaged image is known before training and not in its third hour."""

from wenet_trainer.data.base import View
from wenet_trainer.data.loader import in_order
from wenet_trainer.errors import DataError

GROUP = 64
SHOWN = 10


def verify(view: View, *, workers: int = 0) -> int:
    """Read and decode every image of a view.

    Args:
        view: the images, as `source.train(0)`, `source.validation()` or `source.test()` give them.
        workers: processes that do it; images in memory are looked at here.

    Returns:
        How many there are.

    Raises:
        DataError: some cannot be read; it says how many and why the first ones.
    """
    groups = [slice(start, min(start + GROUP, len(view))) for start in range(0, len(view), GROUP)]
    faults = [fault for found in in_order(_faults, view, groups, workers=workers) for fault in found]
    if faults:
        raise DataError(
            f"{len(faults)} of {len(view)} images cannot be read: {'; '.join(faults[:SHOWN])}"
            + (f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else "")
        )
    return len(view)


def _faults(view: View, rows: slice) -> list[str]:
    faults = []
    for row in range(rows.start, rows.stop):
        try:
            view.load([row])
        except DataError as error:
            faults.append(str(error))
    return faults
