"""The pictures: a frontier over time, a training's curves, accuracy over multiply-accumulates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wenet_trainer.checkpoint import ACCURACY
from wenet_trainer.explore.result import Frontier


def plot_frontier(frontier: Frontier, path: Path) -> None:
    """Write a PNG: candidates hollow, kept modes filled, named and with their 95 % intervals."""
    figure, axes = _canvas(1)
    axes = axes[0]
    points = frontier.points()
    axes.plot(
        [point.latency_ms for point in points],
        [100 * point.accuracy for point in points],
        "o",
        markerfacecolor="none",
        color="tab:gray",
        label=f"candidates ({frontier.search_images} images)",
    )
    images = frontier.modes[0].accuracy.images
    times = [mode.latency.p50_ms for mode in frontier.modes]
    values = [100 * mode.accuracy.value for mode in frontier.modes]
    below = [100 * (mode.accuracy.value - mode.accuracy.ci_low) for mode in frontier.modes]
    above = [100 * (mode.accuracy.ci_high - mode.accuracy.value) for mode in frontier.modes]
    axes.errorbar(
        times,
        values,
        yerr=[below, above],
        fmt="o-",
        capsize=3,
        color="tab:blue",
        label=f"modes ({images} images, 95 %)",
    )
    for mode, time, value in zip(frontier.modes, times, values, strict=True):
        axes.annotate(mode.id, (time, value), textcoords="offset points", xytext=(6, -12))
    axes.set_xlabel("inference time, ms (median, one image)")
    axes.set_ylabel("validation accuracy, %")
    axes.set_title(f"{frontier.data} on {frontier.device}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    _save(figure, path)


def plot_curves(history: Sequence[Mapping[str, float]], title: str, path: Path) -> None:
    """Write a PNG of a training: losses, and the accuracy of every uniform mode, epoch by epoch."""
    figure, (losses, accuracies) = _canvas(2)
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
    _save(figure, path)


def plot_accuracy_over_macs(networks: Mapping[str, Sequence[tuple[float, float]]], title: str, path: Path) -> None:
    """Write a PNG of accuracy over multiply-accumulates.

    Args:
        networks: name → (multiply-accumulates, accuracy 0–1) of its configurations.
        title: of the picture.
        path: the file.
    """
    figure, (axes,) = _canvas(1)
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
    _save(figure, path)


def _level(name: str) -> int:
    return int(name.removeprefix(ACCURACY))


def _canvas(panels: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8 if panels == 1 else 11, 5), layout="constrained")
    FigureCanvasAgg(figure)  # no window, no global state
    return figure, [figure.add_subplot(1, panels, index + 1) for index in range(panels)]


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
