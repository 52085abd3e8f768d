"""The picture of a frontier: accuracy against time, every candidate and every mode that was kept."""

from pathlib import Path

from wenet_trainer.explore.result import Frontier


def plot_frontier(frontier: Frontier, path: Path) -> None:
    """Write a PNG: candidates hollow, kept modes filled, named and with their 95 % intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)  # no window, no global state
    axes = figure.add_subplot()
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
