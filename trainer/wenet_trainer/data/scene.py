"""Draws the images of the source `generated`: one whole textured shape over fragments of others, lines and shade."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from wenet_trainer.errors import DataError

FRAGMENTS, LINES = 4, 2
REACH = 0.66  # from a shape's centre to the edge of the window that holds it at any angle, as a share of its size
FULL_TURN = 2 * np.pi
PERIOD = 0.34  # of a texture, as a share of the shape's size
_PIECE = 8  # random numbers that a shape or a fragment consumes
COLUMNS = 18 + _PIECE + (_PIECE + 7) * FRAGMENTS + 7 * LINES  # random numbers that one image consumes

Array = NDArray[np.float32]
Shape = Callable[[Array, Array], NDArray[np.floating]]

# How far a point lies outside a shape of size 1, negative inside; all cover about the same area.
SHAPES: Mapping[str, Shape] = {
    "circle": lambda u, v: np.hypot(u, v) - 0.40,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) - 0.355,
    "triangle": lambda u, v: np.maximum(abs(u) * 0.866 + v * 0.5, -v) - 0.31,
    "cross": lambda u, v: np.maximum(np.maximum(abs(u), abs(v)) - 0.48, np.minimum(abs(u), abs(v)) - 0.155),
    "ring": lambda u, v: abs(np.hypot(u, v) - 0.33) - 0.14,
    "moon": lambda u, v: np.maximum(np.hypot(u, v) - 0.48, 0.32 - np.hypot(u - 0.3, v)),
}
# Where a texture shows its own colour (above 0), from the phases in rad along two right-angled directions.
TEXTURES: Mapping[str, Shape] = {
    "plain": lambda p, q: np.full_like(p, -1.0),
    "striped": lambda p, q: 2.0 * np.sin(p),
    "checked": lambda p, q: 3.0 * np.sin(p * 0.7) * np.sin(q * 0.7),
    "dotted": lambda p, q: 3.0 * (np.cos(p) + np.cos(q) - 0.7),
}
CLASSES = len(SHAPES) * len(TEXTURES)


def check_within(name: str, value: float, least: float, most: float) -> None:
    """Refuse a setting of generated images that is out of its range. Raises `DataError`."""
    if not least <= value <= most:  # no number is refused, too
        raise DataError(f"{name} is {value}: generated images take {least} to {most}")


@dataclass(frozen=True)
class Scene:
    """How hard the images are; the defaults keep networks of different cost apart.

    Attributes:
        smallest, largest: a shape's size as a share of the image's side, 0.2–1.
        contrast: least distance between the grey levels of background, shape and texture, 0–0.3.
        clutter: greatest opacity of fragments and lines, 0–1.
        noise: greatest standard deviation of the pixel noise, 0–1.
    """

    smallest: float = 0.6
    largest: float = 0.9
    contrast: float = 0.15
    clutter: float = 0.2
    noise: float = 0.03

    def __post_init__(self) -> None:
        limits = {"smallest": (0.2, 1.0), "largest": (self.smallest, 1.0), "contrast": (0.0, 0.3)}
        for field in fields(self):
            least, most = limits.get(field.name, (0.0, 1.0))
            check_within(f"the scene's {field.name}", getattr(self, field.name), least, most)


def compose(labels: NDArray[np.int64], draws: Array, scene: Scene, size: int) -> Array:
    """Images without noise: labels (N,) and uniform numbers (N, COLUMNS) → (N, 3, size, size) in about 0–1."""
    count = len(labels)
    _, opacity, level, spread = draws[:, :4].T
    slope, ranks, tints = draws[:, 4:6] - 0.5, draws[:, 6:9].argsort(axis=1) - 1, draws[:, 9:18].reshape(count, 3, 3)
    piece, fragments, lines = np.split(draws[:, 18:], np.cumsum([_PIECE, (_PIECE + 7) * FRAGMENTS]), axis=1)
    tints = (tints - tints.mean(axis=2, keepdims=True)) * 0.5  # a tint leaves the grey level as it is
    step = scene.contrast + spread * (0.3 - scene.contrast) * 0.5
    # Background, shape and texture take the low, the middle and the high grey level in any order, so none is special.
    colors = (0.35 + 0.3 * level)[:, None, None] + (step[:, None] * ranks)[:, :, None] + tints
    opacity = opacity * scene.clutter
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    shade = (slope[:, :1, None] * ramp[:, None] + slope[:, 1:, None] * ramp) * (0.4 * scene.clutter)
    canvas: Array = (colors[:, 0, :, None, None] + shade[:, None]).astype(np.float32)
    for fragment in np.split(fragments, FRAGMENTS, axis=1):
        which, tones = (fragment[:, -1] * CLASSES).astype(np.int64), fragment[:, _PIECE:-1].reshape(count, 2, 3)
        _paste(canvas, which, fragment[:, :_PIECE], tones, opacity, scene, whole=False)
    _paste(canvas, labels, piece, colors[:, 1:], np.ones_like(opacity), scene, whole=True)
    for line in np.split(lines, LINES, axis=1):
        x, y, angle, width = line[:, :4].T[:, :, None, None]
        across = np.cos(angle * np.pi) * (ramp + 0.5 - x) + np.sin(angle * np.pi) * (ramp[:, None] + 0.5 - y)
        stroke = np.clip(0.5 + (0.015 + 0.02 * width - np.abs(across)) * size, 0.0, 1.0) * opacity[:, None, None]
        canvas += stroke[:, None] * (line[:, 4:, None, None] - canvas)
    return canvas


def _paste(
    canvas: Array, classes: NDArray[np.int64], draws: Array, colors: Array, opacity: Array, scene: Scene, *, whole: bool
) -> None:
    """Lay a textured shape over each image of the canvas: all of it and inside, or else half of it and anywhere.

    `draws` are (N, _PIECE) uniform numbers, `colors` (N, 2, 3) those of the shape and its texture.
    """
    side = canvas.shape[-1]
    grow, x, y, angle, turn, phase, other_phase, cut = draws.T[:, :, None, None]
    size = (scene.smallest + grow * (scene.largest - scene.smallest)) * side
    margin = size * (0.5 if whole else 0.0)
    x, y = margin + x * (side - 2 * margin), margin + y * (side - 2 * margin)
    window = min(side, int(np.ceil(2 * REACH * scene.largest * side)))
    left, top = (np.clip(np.rint(at - window / 2), 0, side - window) for at in (x, y))
    grid = np.arange(window, dtype=np.float32) + 0.5
    dx, dy = (grid + left - x) / size, (grid[:, None] + top - y) / size
    u, v = _turned(dx, dy, angle * FULL_TURN)
    p, q = _turned(dx * (FULL_TURN / PERIOD), dy * (FULL_TURN / PERIOD), turn * FULL_TURN)
    p, q = p + phase * FULL_TURN, q + other_phase * FULL_TURN
    distance, ink = np.empty_like(u), np.empty_like(u)
    for number, shape in enumerate(SHAPES.values()):
        rows = np.flatnonzero(classes // len(TEXTURES) == number)
        distance[rows] = shape(u[rows], v[rows])
    for number, texture in enumerate(TEXTURES.values()):
        rows = np.flatnonzero(classes % len(TEXTURES) == number)
        ink[rows] = np.clip(0.5 + texture(p[rows], q[rows]), 0.0, 1.0)
    if not whole:
        distance = np.maximum(distance, u - (cut - 0.5) * 0.3)
    alpha = np.clip(0.5 - distance * size, 0.0, 1.0) * opacity[:, None, None]
    for image, row, column, cover, share, (base, other) in zip(
        canvas, top.ravel().astype(int), left.ravel().astype(int), alpha, ink, colors[..., None, None], strict=True
    ):
        region = image[:, row : row + window, column : column + window]
        region += cover * (base + share * (other - base) - region)


def _turned(x: Array, y: Array, angle: Array) -> tuple[Array, Array]:
    cos: Array = np.cos(angle)
    sin: Array = np.sin(angle)
    return cos * x + sin * y, cos * y - sin * x
