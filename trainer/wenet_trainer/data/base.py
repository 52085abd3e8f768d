"""What every data source gives: labelled uint8 images per split, and how they become the input."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wenet_runtime.bundle import Preprocess
from wenet_trainer.errors import DataError


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

    def first(self, count: int) -> "Images":
        """The first `count` images."""
        origins = None if self.origins is None else self.origins[:count]
        return Images(self.pixels[:count], self.labels[:count], origins)


class Source(Protocol):
    """A data source: the same seed gives the same splits and the same images, on any run."""

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes the network's input; travels in the bundle."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""

    def train(self, epoch: int) -> Images:
        """The training images of one epoch; drawn anew for each."""

    def validation(self) -> Images:
        """Images for the search and for the accuracies in a bundle."""

    def test(self, *, clean: bool = False) -> Images:
        """Images nobody chose anything by; `clean` without clutter and noise."""


def input_shape(source: Source) -> tuple[int, int, int]:
    """(C, H, W) of one input of that source."""
    recipe = source.preprocess
    return len(recipe.mean), recipe.height, recipe.width


def normalise(pixels: NDArray[np.uint8], recipe: Preprocess) -> Tensor:
    """Images as the network's input: x / 255, minus mean, divided by std; (N, C, H, W) float32."""
    mean = torch.tensor(recipe.mean, dtype=torch.float32).view(1, -1, 1, 1)
    std = torch.tensor(recipe.std, dtype=torch.float32).view(1, -1, 1, 1)
    return (torch.from_numpy(pixels).float() / 255.0 - mean) / std


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
