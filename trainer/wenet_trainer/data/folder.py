"""Images in directories, one per class: PATH/train/<class>/*.jpg, PATH/validation/…, PATH/test/…, or PATH/<class>/…"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wenet_trainer.data.contents import Contents, Names, Split
from wenet_trainer.data.decode import SUFFIXES
from wenet_trainer.data.shards import WORDS
from wenet_trainer.errors import DataError

_Place = tuple[int, int]  # device and number of a directory, whatever it is called


@dataclass(frozen=True)
class FolderStore:
    """Image files below a directory."""

    root: str
    names: Names

    def read(self, row: int) -> bytes:
        """The bytes of one file."""
        try:
            with open(self.name(row), "rb") as file:  # noqa: PTH123 - a Path for each image costs more than the open
                return file.read()
        except OSError as error:
            raise DataError(f"{self.name(row)} cannot be read ({error.strerror}): put it back or start again") from None

    def name(self, row: int) -> str:
        """The file's path."""
        return os.path.join(self.root, self.names[row])  # noqa: PTH118 - as above


def read_folder(path: Path) -> Contents:
    """List the image files below `path`; none is opened.

    Directories `train`, `validation` (or `val`, `valid`) and `test` are splits; without them every directory is a
    class. Classes are numbered in the order of their names.

    Raises:
        DataError: no directory, no class, a class without images, an empty file or one that cannot be read, classes
            that differ between splits, or a directory that two splits share.
    """
    try:
        return _read(path)
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}): put it back or take it out, or change its rights"
        ) from None


def _read(path: Path) -> Contents:
    if not path.is_dir():
        raise DataError(f"{path} is no directory: folder: wants PATH/train/<class>/<image>, or PATH/<class>/<image>")
    splits = _split_folders(path)
    classes = tuple(_subfolders(splits["train"]))
    if not classes:
        raise DataError(
            f"{splits['train']} holds no class directories: it wants <class>/<image> inside, unless "
            f"'{splits['train'].name}' is a class itself: then move all classes into one directory 'train'"
        )
    found: dict[str, Split] = {}
    walked: dict[_Place, str] = {}
    for name, folder in splits.items():
        found[name], places = _read_split(folder, classes, walked)
        walked |= places
    return Contents(str(path), classes, found, tuple(_passed_over(path, splits)))


def _passed_over(path: Path, splits: Mapping[str, Path]) -> Iterator[str]:
    beside = sorted(set(_subfolders(path)) - {folder.name for folder in splits.values()})
    if beside and path not in splits.values():
        yield (
            f"{path} has {', '.join(folder.name for folder in splits.values())}, which are splits: "
            f"'{beside[0]}' {f'and {len(beside) - 1} more ' * (len(beside) > 1)}beside them "
            f"{'are' if len(beside) > 1 else 'is'} passed over"
        )


def _split_folders(path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in _subfolders(path):
        split = WORDS.get(name.lower())
        if split is None:
            continue
        if split in found:
            raise DataError(f"{path} has '{found[split].name}' and '{name}', which mean the same split: keep one")
        found[split] = path / name
    if not found:
        return {"train": path}
    if "train" not in found:
        raise DataError(f"{path} has {', '.join(sorted(f.name for f in found.values()))} but no train directory")
    return found


def _read_split(
    folder: Path, classes: tuple[str, ...], elsewhere: Mapping[_Place, str]
) -> tuple[Split, dict[_Place, str]]:
    """The split, and the directories it lies in; none may be `elsewhere`, in another split."""
    strange = sorted(set(_subfolders(folder)) - set(classes))
    if strange:
        raise DataError(
            f"{folder} has class '{strange[0]}', which the training images do not have: rename or remove it"
        )
    names: list[str] = []
    labels: list[int] = []
    places: dict[_Place, str] = {}
    for label, name in enumerate(classes):
        before = len(names)
        if (folder / name).is_dir():
            names.extend(os.path.join(name, file) for file in sorted(_images(folder / name, places)))  # noqa: PTH118
        else:
            raise DataError(f"{folder} has no class '{name}', which the training images have: add it")
        if len(names) == before:
            raise DataError(
                f"class directory {folder / name} holds no image ({', '.join(sorted(SUFFIXES))}): fill or remove it"
            )
        labels.extend([label] * (len(names) - before))
    for place in (place for place in places if place in elsewhere):
        raise DataError(
            f"{places[place]} and {elsewhere[place]} are one directory, but different splits: accuracies would be "
            "those of images learned; give each split its own"
        )
    split = Split(FolderStore(str(folder), Names(names)), np.arange(len(names)), np.array(labels, np.int64))
    return split, places


def _images(folder: Path, places: dict[_Place, str]) -> Iterator[str]:
    """Image files below a class directory, relative to it; links are followed, each directory once.

    The directories are added to `places`.
    """
    seen: set[_Place] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        status = Path(parent).stat()
        place = (status.st_dev, status.st_ino)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        places[place] = parent
        for file in files:
            if os.path.splitext(file)[1].lower() in SUFFIXES and not file.startswith("."):  # noqa: PTH122
                image = os.path.join(parent, file)  # noqa: PTH118 - a million images pass here
                if os.stat(image).st_size == 0:  # noqa: PTH116
                    raise DataError(f"{image} is empty: replace it or take it out")
                yield os.path.relpath(image, folder)


def _raise(error: OSError) -> None:
    raise error


def _subfolders(path: Path) -> list[str]:
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    for entry in entries:
        entry.stat()  # a link that leads nowhere may have been a class
    return sorted(entry.name for entry in entries if entry.is_dir())
