"""The data source of images that lie in files, whatever layout a reader found them in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wenet_runtime.bundle import Preprocess
from wenet_trainer.data.contents import Contents, StoredView
from wenet_trainer.data.decode import Decoder
from wenet_trainer.data.splits import complete
from wenet_trainer.errors import DataError

SIZE = 224
SMALLEST, LARGEST = 16, 1024
ROOM = 256 / 224  # training images are this much larger than the input, so that augmentation has room to crop
# Of the ImageNet training images, as published checkpoints expect; grey: the mean of the three.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.449,), (0.226,)


@dataclass(frozen=True)
class Stored:
    """Images in files, decoded when they are asked for.

    Attributes:
        contents: all splits, checked.
        seed: fixes the orders (and fixed the splits).
        size: width and height of the network's input in pixels.
        color: "RGB" or "L".
    """

    contents: Contents
    seed: int = 0
    size: int = SIZE
    color: str = "RGB"

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= LARGEST:
            raise DataError(f"image size {self.size} is out of range: {SMALLEST} to {LARGEST} pixels are possible")
        if self.color not in ("RGB", "L"):
            raise DataError(f"unknown colour '{self.color}': known are RGB and L")

    @classmethod
    def open(
        cls, read: Callable[[Path], Contents], path: Path, *, seed: int, size: int = SIZE, color: str = "RGB"
    ) -> "Stored":
        """Read what lies at `path`, check it and cut the splits that are missing. Raises `DataError`."""
        where = path.expanduser()
        if not where.exists():
            raise DataError(f"there is no {where}: give the path of the images, as in folder:/data/birds")
        return cls(complete(read(where), seed), seed, size, color)

    @property
    def preprocess(self) -> Preprocess:
        """The whole image stretched to `size` × `size`, as the daemon does."""
        mean, std = (GREY_MEAN, GREY_STD) if self.color == "L" else (MEAN, STD)
        return Preprocess(color=self.color, height=self.size, width=self.size, mean=mean, std=std)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.contents.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the splits, one sentence each."""
        return self.contents.notes

    def train(self, epoch: int) -> StoredView:
        """All training images in the epoch's order, `ROOM` times larger than the input."""
        return self._view("train", (1, epoch), Decoder(round(self.size * ROOM), self.color, draft=True))

    def validation(self) -> StoredView:
        """The validation images, mixed, exactly as the daemon would decode them."""
        return self._view("validation", (2,), Decoder(self.size, self.color))

    def test(self) -> StoredView:
        """The test images, mixed, exactly as the daemon would decode them."""
        return self._view("test", (3,), Decoder(self.size, self.color))

    def _view(self, name: str, key: tuple[int, ...], decoder: Decoder) -> StoredView:
        split = self.contents.splits[name]
        order = np.random.default_rng((self.seed, *key)).permutation(len(split))
        return StoredView(split.take(order), decoder)
