"""Whether labels and splits make sense, and the splits that are missing, cut from the training images."""

import numpy as np
from numpy.typing import NDArray

from wenet_trainer.data.contents import SPLITS, Contents, Split
from wenet_trainer.errors import DataError

SHARE = 0.1  # of the training images, for each split that is missing
# Images of such a split, unless one of each class are more: enough for an interval of ±1 point, few enough for memory.
MOST = 10_000
_SHOWN = 8


def complete(contents: Contents, seed: int) -> Contents:
    """Check what was found and cut the missing splits from the training images, class by class.

    Args:
        contents: what a reader found.
        seed: fixes which images are set aside.

    Returns:
        The contents with all of `SPLITS`; its notes say what was done.

    Raises:
        DataError: no training images, fewer than two classes, a class without training images, classes that only
            some splits know, or a class too small to cut from.
    """
    _check(contents)
    train = contents.splits["train"]
    missing = [name for name in SPLITS if name not in contents.splits]
    notes = [*contents.notes, *_absent_from_test(contents)]
    if not missing:
        return Contents(contents.where, contents.classes, contents.splits, tuple(notes))
    pieces = _cut(contents, len(missing), seed)
    splits = {**contents.splits, "train": train.take(pieces[0])}
    for name, piece in zip(missing, pieces[1:], strict=True):
        splits[name] = train.take(piece)
        notes.append(
            f"{contents.where} has no {name} split: {len(piece)} of {len(train)} training images are set aside for it, "
            f"class by class, by seed {seed}"
        )
    return Contents(contents.where, contents.classes, splits, tuple(notes))


def _check(contents: Contents) -> None:
    where, classes = contents.where, contents.classes
    if "train" not in contents.splits or not len(contents.splits["train"]):
        found = ", ".join(contents.splits) or "nothing"
        raise DataError(f"{where} has no training images (found: {found}): see docs/data.md for the layouts")
    counts = np.bincount(contents.splits["train"].labels, minlength=len(classes))
    if len(classes) < 2 or np.count_nonzero(counts) < 2:
        only = classes[int(counts.argmax())]
        raise DataError(f"{where} has one class only ('{only}'): a classifier needs at least two")
    gaps = [f"'{classes[index]}'" for index in np.flatnonzero(counts == 0)]
    if gaps:
        raise DataError(
            f"{where} has no training image of {_some('class', gaps)} "
            f"(labels run from 0 to {len(classes) - 1}): add images, or take the class out"
        )
    for name in ("validation", "test"):
        if name not in contents.splits:
            continue
        if not len(contents.splits[name]):
            raise DataError(f"the {name} split of {where} is empty: fill it, or remove it to have one cut from train")
        absent = _absent(contents, name)
        if absent and name == "validation":
            raise DataError(
                f"the validation split of {where} has no image of {_some('class', absent)}, which train has: add some, "
                "or remove the split to have one cut from train"
            )


def _absent(contents: Contents, name: str) -> list[str]:
    counts = np.bincount(contents.splits[name].labels, minlength=len(contents.classes))
    return [f"'{contents.classes[index]}'" for index in np.flatnonzero(counts == 0)]


def _absent_from_test(contents: Contents) -> list[str]:
    # Rare classes often have no test image, and an accuracy without them is still one.
    absent = _absent(contents, "test") if "test" in contents.splits else []
    return [f"the test split of {contents.where} has no image of {_some('class', absent)}"] if absent else []


def _cut(contents: Contents, pieces: int, seed: int) -> list[NDArray[np.int64]]:
    """Indices of the training images that stay, then of each of `pieces` new splits; every class in proportion."""
    train: Split = contents.splits["train"]
    share = min(SHARE, MOST / len(train))
    order = np.random.default_rng((seed, 0)).permutation(len(train))
    order = order[np.argsort(train.labels[order], kind="stable")]
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(pieces + 1)]
    starts = np.searchsorted(train.labels[order], np.arange(len(contents.classes) + 1))
    for index, name in enumerate(contents.classes):
        own = order[starts[index] : starts[index + 1]]
        each = max(1, round(share * len(own)))
        if len(own) <= pieces * each:
            raise DataError(
                f"class '{name}' of {contents.where} has {len(own)} training image{'s' * (len(own) != 1)}, too few to "
                f"set {pieces * each} aside: add images, or give the validation and test splits yourself"
            )
        for place in range(pieces):
            parts[place + 1].append(own[place * each : (place + 1) * each])
        parts[0].append(own[pieces * each :])
    return [np.sort(np.concatenate(part)) for part in parts]


def _some(noun: str, names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{noun if len(names) == 1 else plural} {shown}{more}"
