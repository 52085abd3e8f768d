"""Images in directories, one per class: PATH/train/<class>/*.jpg, PATH/validation/…, PATH/test/…, or PATH/<class>/…"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wenet_trainer.data.contents import Contents, Names, Split
from wenet_trainer.data.decode import SUFFIXES
from wenet_trainer.data.shards import WORDS
from wenet_trainer.errors import DataError


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
        DataError: no directory, no class, a class without images, an empty file, classes that differ between splits.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no directory: folder: wants PATH/train/<class>/<image>, or PATH/<class>/<image>")
    splits = _split_folders(path)
    classes = tuple(_subfolders(splits["train"]))
    if not classes:
        raise DataError(f"{splits['train']} holds no class directories: it wants <class>/<image> inside")
    return Contents(str(path), classes, {name: _read_split(folder, classes) for name, folder in splits.items()})


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


def _read_split(folder: Path, classes: tuple[str, ...]) -> Split:
    strange = sorted(set(_subfolders(folder)) - set(classes))
    if strange:
        raise DataError(
            f"{folder} has class '{strange[0]}', which the training images do not have: rename or remove it"
        )
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        before = len(names)
        if (folder / name).is_dir():
            names.extend(os.path.join(name, file) for file in sorted(_images(folder / name)))  # noqa: PTH118
        else:
            raise DataError(f"{folder} has no class '{name}', which the training images have: add it")
        if len(names) == before:
            raise DataError(
                f"class directory {folder / name} holds no image ({', '.join(sorted(SUFFIXES))}): fill or remove it"
            )
        labels.extend([label] * (len(names) - before))
    return Split(FolderStore(str(folder), Names(names)), np.arange(len(names)), np.array(labels, np.int64))


def _images(folder: Path) -> Iterator[str]:
    """Image files below a class directory, relative to it; links are followed, each directory once."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for file in files:
            if os.path.splitext(file)[1].lower() in SUFFIXES and not file.startswith("."):  # noqa: PTH122
                place = os.path.join(parent, file)  # noqa: PTH118 - a million images pass here
                if os.stat(place).st_size == 0:  # noqa: PTH116
                    raise DataError(f"{place} is empty: replace it or take it out")
                yield os.path.relpath(place, folder)


def _subfolders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
