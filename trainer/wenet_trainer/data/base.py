"""What every data source gives: labelled uint8 images per split, read when needed, and how they become the input."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wenet_runtime.bundle import Preprocess
from wenet_trainer.errors import DataError

_TOGETHER = 64  # images that are normalised at once: each step makes a copy


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        pixels: (N, C, H, W) uint8, as a PNG would hold them.
        labels: (N,) int64.
        origins: (N,) int64, which original each image is a view of; None when every image has its own.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    origins: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8 or len(self.pixels) != len(self.labels):
            raise DataError(
                f"images must be (N, C, H, W) uint8 with N labels, got {self.pixels.shape} {self.pixels.dtype} "
                f"with {len(self.labels)} labels"
            )
        if self.origins is not None and self.origins.shape != (len(self.labels),):
            raise DataError(
                f"origins must name one original per image, got shape {self.origins.shape} for {len(self.labels)} "
                "images: leave them out when no two images share an original"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def in_memory(self) -> bool:
        """They are."""
        return True

    def load(self, rows: Sequence[int] | slice) -> "Images":
        """These images, in this order."""
        origins = None if self.origins is None else self.origins[rows]
        return Images(self.pixels[rows], self.labels[rows], origins)

    def first(self, count: int) -> "Images":
        """The first `count` images."""
        return self.load(slice(count))


class View(Protocol):
    """Images that may lie on disk until they are asked for; `Images` is the view whose images are here already."""

    def __len__(self) -> int:
        """How many images there are."""

    @property
    def in_memory(self) -> bool:
        """Whether its images are held in memory already: then they are not sent to reading processes."""

    def load(self, rows: Sequence[int] | slice) -> Images:
        """Read these images, in this order. Raises `DataError`, which names the file, if one cannot be read."""

    def first(self, count: int) -> Images:
        """Read the first `count` images, or all if there are fewer."""


class Source(Protocol):
    """A data source: the same seed gives the same splits and the same images, on any run."""

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes the network's input; travels in the bundle."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing before training on it, a sentence each."""

    def train(self, epoch: int) -> View:
        """The training images of one epoch, in a fresh order; synthetic ones are drawn anew."""

    def validation(self) -> View:
        """Images for the search and for the accuracies in a bundle, in an order that mixes the classes."""

    def test(self) -> View:
        """Images nobody chose anything by."""


def input_shape(source: Source) -> tuple[int, int, int]:
    """(C, H, W) of one input of that source."""
    recipe = source.preprocess
    return len(recipe.mean), recipe.height, recipe.width


def normalise(pixels: NDArray[np.uint8], recipe: Preprocess) -> Tensor:
    """Images as the network's input: (N, C, H, W) uint8 → (N, C, height, width) float32.

    Larger ones, as augmentation wants them for training, are shrunk. Beside the result it takes little memory.
    """
    size = (recipe.height, recipe.width)
    inputs = torch.empty((len(pixels), max(pixels.shape[1], len(recipe.mean)), *size))
    for start in range(0, len(pixels), _TOGETHER):
        rows = slice(start, start + _TOGETHER)
        inputs[rows] = standardise(stretched(torch.from_numpy(pixels[rows]).float() / 255.0, size), recipe)
    return inputs


def stretched(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images in 0–1 of another size, as the daemon stretches them: (N, C, H, W) → (N, C, height, width)."""
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False).clamp(0.0, 1.0)


def standardise(images: Tensor, recipe: Preprocess) -> Tensor:
    """Images in 0–1 on any device, minus mean, divided by std: (N, C, H, W)."""
    mean = images.new_tensor(recipe.mean).view(1, -1, 1, 1)
    std = images.new_tensor(recipe.std).view(1, -1, 1, 1)
    return (images - mean) / std


def write_pngs(images: Images, folder: Path, count: int) -> list[Path]:
    """Write the first images as `test-0007-label3.png`, so that a person can see and post them."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, (pixels, label) in enumerate(zip(images.pixels[:count], images.labels[:count], strict=True)):
        path = folder / f"test-{index:04d}-label{int(label)}.png"
        Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(path)
        paths.append(path)
    return paths
