"""What a reader of files finds at a path: encoded images, their labels and their splits; and the view that decodes."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wenet_trainer.data.base import Images
from wenet_trainer.data.decode import Decoder
from wenet_trainer.errors import DataError

SPLITS = ("train", "validation", "test")


class Store(Protocol):
    """Encoded images that can be read one by one, in any order. Travels to reading processes, so it must be small."""

    def read(self, row: int) -> bytes:
        """The bytes of one image file. Raises `DataError`, which names the file, if they cannot be read."""

    def name(self, row: int) -> str:
        """Where a person finds that image."""


@dataclass(frozen=True)
class Split:
    """Labelled images of a store.

    Attributes:
        store: where the bytes come from.
        rows: (N,) int64, rows of the store.
        labels: (N,) int64 class indices.
    """

    store: Store
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: NDArray[np.int64]) -> "Split":
        """These of its images, in this order."""
        return Split(self.store, self.rows[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Contents:
    """All that lies at a path.

    Attributes:
        where: the path, for messages.
        classes: names of the classes, by index.
        splits: those that are there, of `SPLITS`.
        notes: what the user should know, one sentence each.
    """

    where: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredView:
    """Images of a split, decoded when they are asked for."""

    split: Split
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.split)

    @property
    def in_memory(self) -> bool:
        """They are not: each is read and decoded."""
        return False

    def load(self, rows: Sequence[int] | slice) -> Images:
        """Read and decode these images, in this order. Raises `DataError`, which names the file."""
        labels, store_rows = self.split.labels[rows], self.split.rows[rows]
        channels = 1 if self.decoder.color == "L" else 3
        pixels = np.empty((len(labels), channels, self.decoder.side, self.decoder.side), np.uint8)
        for place, row in enumerate(store_rows):
            store = self.split.store
            pixels[place] = self.decoder(store.read(int(row)), store.name(int(row)))
        return Images(pixels, labels)

    def first(self, count: int) -> Images:
        """Read and decode the first `count` images, or all if there are fewer."""
        return self.load(slice(count))


def number_classes(labels: Iterable[tuple[Store, NDArray[np.int64]]]) -> tuple[str, ...]:
    """Names for classes that have only numbers: "0", "1" and so on, up to the highest label.

    Args:
        labels: of each split: its store, and the label of every row of it.

    Raises:
        DataError: a label as large as the number of images, so that some class must lack images. One wrong number
            would otherwise name millions of classes.
    """
    found = [(store, given) for store, given in labels if len(given)]
    images = sum(len(given) for _, given in found)
    for store, given in found:
        row = int(given.argmax())
        if given[row] >= images:
            raise DataError(
                f"{store.name(row)} has label {given[row]}, but there are only {images} images: labels are whole "
                "numbers from 0 without gaps; correct it or take it out"
            )
    return tuple(str(label) for label in range(max((int(given.max()) for _, given in found), default=-1) + 1))


class Names:
    """Many strings in one piece of memory: a list of a million would cost 100 MB and seconds to send."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._text[start : int(self._ends[index])])
