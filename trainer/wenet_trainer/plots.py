"""What all pictures share (canvas, labels, bytes), a training's curves, accuracy over multiply-accumulates."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.files import write_atomic
from wenet_trainer.checkpoint import ACCURACY

Boxes = NDArray[np.float64]

DPI = 120
_GAP = 4.0  # points between a label and what it must not touch
_REACHES = (6.0, 14.0, 24.0, 36.0, 50.0)  # points between a label and its place, nearest first
_DIRECTIONS = tuple(math.radians(degrees) for degrees in (135, 90, 180, 45, 112, 157, 0, 270, 225, 315, 67, 22))


def plot_curves(history: Sequence[Mapping[str, float]], title: str, path: Path) -> None:
    """Write a PNG of a training: losses, and the accuracy of every uniform mode, epoch by epoch."""
    figure = canvas(11, 5)
    losses, accuracies = figure.subplots(1, 2)
    epochs = range(1, len(history) + 1)
    for name, label in (("loss_full", "full network"), ("loss_smallest", "smallest network")):
        losses.plot(epochs, [record[name] for record in history], ".-", label=label)
    losses.set_ylabel("training loss")
    names = sorted({name for record in history for name in record if name.startswith(ACCURACY)}, key=_level)
    for name in names:
        rows = [(epoch, 100 * record[name]) for epoch, record in zip(epochs, history, strict=True) if name in record]
        accuracies.plot(*zip(*rows, strict=True), ".-", label=f"1/{_level(name)}")
    accuracies.set_ylabel("validation accuracy, %")
    for axes in (losses, accuracies):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.suptitle(title)
    save(figure, path)


def plot_accuracy_over_macs(networks: Mapping[str, Sequence[tuple[float, float]]], title: str, path: Path) -> None:
    """Write a PNG of accuracy over multiply-accumulates.

    Args:
        networks: name → (multiply-accumulates, accuracy 0–1) of its configurations.
        title: of the picture.
        path: the file.
    """
    figure = canvas(8, 5)
    axes = figure.subplots()
    for name, points in networks.items():
        ordered = sorted(points)
        axes.plot([macs / 1e6 for macs, _ in ordered], [100 * value for _, value in ordered], "o-", label=name)
    axes.set_xlabel("multiply-accumulates of one image, millions")
    axes.set_ylabel("accuracy, %")
    axes.set_xscale("log")
    for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatter("{x:g}")  # 0.6, not a power of ten
    axes.set_title(title)
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="best")
    save(figure, path)


def canvas(width: float, height: float) -> Any:
    """An empty matplotlib figure of this size in inches: no window, no state outside of it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path) -> None:
    """Write a PNG or SVG, by the path's ending, at once or not at all. The same figure gives the same bytes."""
    from matplotlib import rc_context

    kind, buffer = path.suffix[1:], io.BytesIO()
    with rc_context({"svg.hashsalt": "wenet"}):  # else identifiers are random
        figure.savefig(buffer, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def settle(figure: Any) -> None:
    """Lay the figure out and keep it so, because labels are placed by what lies where."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def place_labels(axes: Any, labels: Sequence[tuple[str, float, float]], taken: Boxes, dots: Boxes) -> None:
    """Name points without covering one another or what is drawn, as near as that goes.

    Args:
        axes: of a figure that is settled; its limits stay.
        labels: (text, x, y) of each point.
        taken: (N, 4) what must not be covered, as data coordinates x0, y0, x1, y1.
        dots: (M, 2) data coordinates of what had better not be covered.
    """
    figure = axes.figure
    renderer, scale = figure.canvas.get_renderer(), figure.dpi / 72
    inside, to_pixels = axes.get_window_extent(renderer), axes.transData.transform
    corners = np.sort(to_pixels(taken.reshape(-1, 2)).reshape(-1, 2, 2), axis=1)
    walls = np.concatenate([corners[:, 0], corners[:, 1]], axis=1).reshape(-1, 4)
    marks = to_pixels(dots.reshape(-1, 2))
    for text, x, y in labels:
        label = axes.annotate(
            text, (x, y), xytext=(0, 0), textcoords="offset points", ha="center", va="center", zorder=6
        )
        size = label.get_window_extent(renderer)
        best: tuple[float, float, float, float] | None = None
        box = np.zeros(4)
        for rank, angle in enumerate(_DIRECTIONS):
            for reach in _REACHES:
                dx = math.cos(angle) * (reach * scale + size.width / 2)
                dy = math.sin(angle) * (reach * scale + size.height / 2)
                middle = to_pixels((x, y)) + (dx, dy)
                half = np.array([size.width, size.height]) / 2
                tried = np.concatenate([middle - half, middle + half])
                cost = 1000 * _beyond(tried, inside) + 100 * _covered(walls, tried, _GAP * scale / 2)
                cost += 3 * _hidden(marks, tried) + reach + rank / 10
                if best is None or cost < best[0]:
                    best, box = (cost, dx / scale, dy / scale, reach), tried
        assert best is not None
        label.set_position(best[1:3])
        if best[3] > _REACHES[1]:  # far from its point
            label.remove()
            line = {"arrowstyle": "-", "lw": 0.6, "color": "0.4", "shrinkA": 0, "shrinkB": 4}
            axes.annotate(
                text, (x, y), xytext=best[1:3], textcoords="offset points", ha="center", va="center", zorder=6,
                arrowprops=line,
            )  # fmt: skip
        walls = np.concatenate([walls, box[None]])


def _beyond(box: Boxes, inside: Any) -> float:
    """By how many pixels a box leaves the axes."""
    sides = (inside.x0 - box[0], inside.y0 - box[1], box[2] - inside.x1, box[3] - inside.y1)
    return float(sum(max(0.0, side) for side in sides))


def _covered(walls: Boxes, box: Boxes, gap: float) -> int:
    """How many walls a box comes nearer to than the gap."""
    apart = (walls[:, :2] - gap > box[2:]) | (walls[:, 2:] + gap < box[:2])
    return int((~apart.any(axis=1)).sum())


def _hidden(marks: Boxes, box: Boxes) -> int:
    """How many marks lie in a box."""
    return int(((marks >= box[:2]) & (marks <= box[2:])).all(axis=1).sum())


def _level(name: str) -> int:
    return int(name.removeprefix(ACCURACY))
