"""Generated images for classification: a class is a shape with a texture, drawn as `scene` does.

Colour, place, size and angle are drawn alike for every class.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Preprocess
from wenet_trainer.data.base import Images
from wenet_trainer.data.scene import CLASSES, COLUMNS, SHAPES, TEXTURES, Array, Scene, check_within, compose

SPLITS = ("train", "validation", "test")
SMALLEST, LARGEST = 32, 224  # px
CHUNK = 2**18  # pixels that are rendered together, about a core's cache: 256 small images


@dataclass(frozen=True)
class Generated:
    """The data source `generated`.

    The training images are drawn once; each epoch shows them in a fresh order, turned, mirrored and shifted.

    Attributes:
        seed: fixes every image; image i of a split follows from seed, split, i, size, scene and classes alone.
        size: height and width in px, 32–224.
        scene: how hard the images are.
        train_images, validation_images, test_images: how many there are.
        classes: the first so many of the 24 classes.

    Raises:
        DataError: an argument is out of its range.
    """

    seed: int = 0
    size: int = 32
    scene: Scene = field(default_factory=Scene)
    train_images: int = 2500
    validation_images: int = 2000
    test_images: int = 10000
    classes: int = CLASSES

    def __post_init__(self) -> None:
        check_within("size", self.size, SMALLEST, LARGEST)
        check_within("classes", self.classes, 2, CLASSES)
        check_within("seed", self.seed, 0, 2**63)
        for split in SPLITS:
            check_within(f"{split}_images", getattr(self, f"{split}_images"), self.classes, 10**7)

    @property
    def preprocess(self) -> Preprocess:
        """RGB at the source's size, roughly zero mean and unit variance."""
        return Preprocess(color="RGB", height=self.size, width=self.size, mean=(0.5,) * 3, std=(0.25,) * 3)

    @property
    def labels(self) -> tuple[str, ...]:
        """Shape and texture, such as "circle striped"."""
        return tuple(f"{shape} {texture}" for shape in SHAPES for texture in TEXTURES)[: self.classes]

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def train(self, epoch: int) -> "Epoch":
        """The training images in the epoch's order, each turned, mirrored and shifted when it is loaded."""
        rng = np.random.default_rng((self.seed, len(SPLITS), epoch))
        order = rng.permutation(self.train_images)
        return Epoch(self._training, order, rng.random((self.train_images, 4), dtype=np.float32))

    def validation(self) -> Images:
        """Images of their own, classes mixed."""
        return self._draw("validation")

    def test(self) -> Images:
        """Images of their own, classes mixed."""
        return self._draw("test")

    @cached_property
    def _training(self) -> Images:
        return self._draw("train")

    def _draw(self, split: str) -> Images:
        key, count = (self.seed, SPLITS.index(split)), getattr(self, f"{split}_images")
        rounds = np.tile(np.arange(self.classes), (-(-count // self.classes), 1))
        labels = np.random.default_rng((*key, 1)).permuted(rounds, axis=1).ravel()[:count]  # every class once a round
        pixels = np.empty((count, 3, self.size, self.size), np.uint8)
        chunk = CHUNK // self.size**2
        for start in range(0, count, chunk):
            rows = slice(start, start + chunk)
            rngs = [np.random.default_rng((*key, 0, index)) for index in range(count)[rows]]
            draws = np.stack([rng.random(COLUMNS, dtype=np.float32) for rng in rngs])
            canvas = compose(labels[rows], draws, self.scene, self.size)
            for image, rng, draw in zip(canvas, rngs, draws[:, 0], strict=True):
                image += rng.standard_normal(image.shape, dtype=np.float32) * (draw * self.scene.noise)
            pixels[rows] = np.rint(np.clip(canvas, 0.0, 1.0) * 255.0)
        return Images(pixels, labels)


@dataclass(frozen=True)
class Epoch:
    """A view of fixed images in an order, every one moved in a way that keeps its class.

    Attributes:
        images: the fixed images.
        order: (N,) which image stands at each place.
        moves: (N, 4) uniform numbers: transpose, mirror and turn, shift down, shift right.
    """

    images: Images
    order: NDArray[np.int64]
    moves: Array

    def __len__(self) -> int:
        return len(self.order)

    @property
    def in_memory(self) -> bool:
        """The fixed images are; moving them is quicker than sending them."""
        return True

    def load(self, rows: Sequence[int] | slice) -> Images:
        """These images, in this order."""
        order, size = self.order[rows], self.images.pixels.shape[-1]
        moved = self.images.pixels[order]
        for image, (swap, flip, down, right) in zip(moved, self.moves[rows], strict=True):
            view = image.swapaxes(1, 2) if swap < 0.5 else image
            view = view[:, :: (1, -1)[int(flip * 4) // 2], :: (1, -1)[int(flip * 4) % 2]]
            ys, xs = (np.arange(size) + int(draw * (size // 16 * 2 + 1)) - size // 16 for draw in (down, right))
            image[:] = view[:, np.clip(ys, 0, size - 1)[:, None], np.clip(xs, 0, size - 1)]  # edges are repeated
        return Images(moved, self.images.labels[order])

    def first(self, count: int) -> Images:
        """The first `count` images."""
        return self.load(slice(count))
