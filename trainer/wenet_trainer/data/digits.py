"""Handwritten digits that ship inside scikit-learn (1,797 real scans of 8×8), shown in cluttered scenes.

The digits are split first; every view is then made from the digits of its own split, also its clutter.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from wenet_runtime.bundle import Preprocess
from wenet_trainer.data.base import Images
from wenet_trainer.errors import DataError

SIZE = 32
SPLITS = ("train", "validation", "test")
FRAGMENTS = 4
LINES = 3
CLEAN_SHARE = 0.2  # of the training views, so that plain images are known too
_COLUMNS = 8 + 7 * FRAGMENTS + 6 * LINES  # random numbers that one view consumes

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """How hard the scenes are; the defaults keep the full and the smallest mode apart.

    Attributes:
        smallest_px, largest_px: a digit's size on the 32×32 canvas.
        clutter: greatest intensity of fragments and lines, 0–1.
        noise: greatest standard deviation of the pixel noise, 0–1.
    """

    smallest_px: float = 16.0
    largest_px: float = 26.0
    clutter: float = 0.6
    noise: float = 0.14


@dataclass(frozen=True)
class Digits:
    """The data source `digits`.

    Attributes:
        seed: fixes the splits and every view.
        scene: how hard the scenes are.
        train_views: views of every training digit in one epoch.
        held_out_views: views of every validation and test digit.
    """

    seed: int = 0
    scene: Scene = Scene()
    train_views: int = 2
    held_out_views: int = 4

    @property
    def preprocess(self) -> Preprocess:
        """Grey 32×32, roughly zero mean and unit variance."""
        return Preprocess(color="L", height=SIZE, width=SIZE, mean=(0.25,), std=(0.3,))

    @property
    def labels(self) -> tuple[str, ...]:
        """The ten digits."""
        return tuple(str(digit) for digit in range(10))

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    @cached_property
    def _splits(self) -> dict[str, tuple[Array, NDArray[np.int64]]]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits, labels = load_digits(return_X_y=True)
        scans = (digits.reshape(-1, 8, 8) / 16.0).astype(np.float32)
        indices = np.arange(len(labels))
        train, rest = train_test_split(indices, train_size=0.55, stratify=labels, random_state=self.seed)
        validation, test = train_test_split(rest, train_size=20 / 45, stratify=labels[rest], random_state=self.seed)
        return {
            name: (scans[chosen], labels[chosen].astype(np.int64))
            for name, chosen in zip(SPLITS, (train, validation, test), strict=True)
        }

    def scans(self, split: str) -> tuple[Array, NDArray[np.int64]]:
        """The original digits of a split: (N, 8, 8) float32 in 0–1, and their labels."""
        if split not in SPLITS:
            raise DataError(f"unknown split '{split}': known are {', '.join(SPLITS)}")
        return self._splits[split]

    def train(self, epoch: int) -> Images:
        """Fresh views of every training digit, in a fresh order."""
        scans, _ = self.scans("train")
        return self._views("train", epoch, len(scans) * self.train_views, clean_share=CLEAN_SHARE)

    def validation(self) -> Images:
        """Cluttered views of the validation digits."""
        scans, _ = self.scans("validation")
        return self._views("validation", 0, len(scans) * self.held_out_views, clean_share=0.0)

    def test(self, *, clean: bool = False) -> Images:
        """Cluttered views of the test digits, or each once, centred on a plain background."""
        scans, labels = self.scans("test")
        if not clean:
            return self._views("test", 0, len(scans) * self.held_out_views, clean_share=0.0)
        centred = np.full(len(scans), SIZE / 2, np.float32)
        size = np.full(len(scans), (self.scene.smallest_px + self.scene.largest_px) / 2 + 2, np.float32)
        return Images(_to_pixels(_place(scans, centred, centred, size, np.zeros_like(size))), labels)

    def _views(self, split: str, epoch: int, count: int, *, clean_share: float) -> Images:
        """`count` views; view i depends on (seed, split, epoch, i) only."""
        scans, labels = self.scans(split)
        key = (self.seed, SPLITS.index(split), epoch)
        order = np.random.default_rng((*key, 0)).permutation(count) % len(scans)
        draws = np.random.default_rng((*key, 1)).random((count, _COLUMNS), dtype=np.float32)
        noise = np.random.default_rng((*key, 2)).standard_normal((count, SIZE, SIZE), dtype=np.float32)
        canvas = _compose(scans[order], scans, draws, noise, self.scene, clean_share)
        return Images(_to_pixels(canvas), labels[order], order)


def _compose(digits: Array, pool: Array, draws: Array, noise: Array, scene: Scene, clean_share: float) -> Array:
    """Digits (N, 8, 8) in scenes (N, 32, 32); `draws` are uniform numbers, one row per view."""
    x, y, size, angle, contrast, clutter, noisiness, plain = draws[:, :8].T
    fragments = draws[:, 8 : 8 + 7 * FRAGMENTS].reshape(-1, FRAGMENTS, 7)
    lines = draws[:, 8 + 7 * FRAGMENTS :].reshape(-1, LINES, 6)
    side = scene.smallest_px + size * (scene.largest_px - scene.smallest_px)
    spread = SIZE - side + 2.0  # a digit may leave the canvas by a pixel
    shown = _place(digits, SIZE / 2 + (x - 0.5) * spread, SIZE / 2 + (y - 0.5) * spread, side, (angle - 0.5) * 0.4)
    background = np.maximum(_fragments(pool, fragments), _lines(lines))
    cluttered = (plain >= clean_share).astype(np.float32)
    strength = (clutter * scene.clutter * cluttered)[:, None, None]
    image: Array = np.maximum(background * strength, shown * (0.7 + 0.3 * contrast)[:, None, None])
    image += noise * (noisiness * scene.noise * cluttered)[:, None, None]
    return image


def _fragments(pool: Array, draws: Array) -> Array:
    """Pieces of other digits anywhere on the canvas: (N, FRAGMENTS, 7) uniform numbers → (N, 32, 32)."""
    count, pieces, _ = draws.shape
    which, x, y, size, angle, row, column = draws.reshape(-1, 7).T
    scans = pool[(which * len(pool)).astype(np.int64)]
    # A window of 5×5 of the 8×8 pixels: a stroke or a corner, never a whole digit.
    grid = np.arange(8)
    rows = (grid >= np.floor(row * 4)[:, None]) & (grid < np.floor(row * 4)[:, None] + 5)
    columns = (grid >= np.floor(column * 4)[:, None]) & (grid < np.floor(column * 4)[:, None] + 5)
    cut = scans * (rows[:, :, None] & columns[:, None, :])
    placed = _place(cut.astype(np.float32), x * SIZE, y * SIZE, 14.0 + size * 12.0, (angle - 0.5) * 6.28)
    result: Array = placed.reshape(count, pieces, SIZE, SIZE).max(axis=1)
    return result


def _lines(draws: Array) -> Array:
    """Thin strokes: (N, LINES, 6) uniform numbers → (N, 32, 32)."""
    count, lines, _ = draws.shape
    x0, y0, x1, y1, width, level = draws.reshape(-1, 6).T[:, :, None, None]
    ys, xs = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + np.float32(0.5)
    dx, dy = (x1 - x0) * SIZE, (y1 - y0) * SIZE
    along = ((xs - x0 * SIZE) * dx + (ys - y0 * SIZE) * dy) / np.maximum(dx * dx + dy * dy, 1e-6)
    along = np.clip(along, 0.0, 1.0)
    distance = np.hypot(xs - x0 * SIZE - along * dx, ys - y0 * SIZE - along * dy)
    stroke = np.clip(1.5 + width - distance, 0.0, 1.0) * (0.4 + 0.6 * level)
    result: Array = stroke.reshape(count, lines, SIZE, SIZE).max(axis=1).astype(np.float32)
    return result


def _place(scans: Array, x: Array, y: Array, side: Array, angle: Array) -> Array:
    """Scans (N, 8, 8) on an empty canvas, centred at (x, y) px, `side` px wide, turned by `angle` rad."""
    scale, cos, sin = SIZE / side, np.cos(angle), np.sin(angle)
    dx, dy = 1.0 - 2.0 * x / SIZE, 1.0 - 2.0 * y / SIZE
    rotate = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1) * scale[:, None, None]
    shift = rotate @ np.stack([dx, dy], -1)[:, :, None]
    theta = torch.from_numpy(np.concatenate([rotate, shift], 2).astype(np.float32))
    grid = F.affine_grid(theta, [len(scans), 1, SIZE, SIZE], align_corners=False)
    canvas = F.grid_sample(torch.from_numpy(scans)[:, None], grid, align_corners=False)
    result: Array = canvas[:, 0].numpy()
    return result


def _to_pixels(canvas: Array) -> NDArray[np.uint8]:
    """(N, 32, 32) in about 0–1 → (N, 1, 32, 32) uint8."""
    return np.round(np.clip(canvas, 0.0, 1.0) * 255.0).astype(np.uint8)[:, None]
