"""Time lines of a load: every request's latency against the budget, its mode by colour, stress shaded."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load_report import OK
from benchmarks.open_loop import Answer
from wenet_runtime.files import write_atomic


@dataclass(frozen=True)
class Line:
    """One row of the picture.

    Attributes:
        title: what stands above it.
        answers: the blocks' answers, by their first second in the line.
        stressed: (from, to, what) seconds with stress.
    """

    title: str
    answers: Sequence[tuple[float, Sequence[Answer]]]
    stressed: Sequence[tuple[float, float, str]]


def draw(path: Path, lines: Sequence[Line], *, budget_ms: float, modes: Mapping[str, float], title: str) -> None:
    """Write a PNG.

    Args:
        path: where.
        lines: from top to bottom.
        budget_ms: the dashed line.
        modes: recorded accuracies by mode id, the most accurate first; their order decides the colours.
        title: of the whole.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    palette = plt.get_cmap("viridis")
    colours: dict[str, Any] = {mode: palette(0.95 * n / max(1, len(modes) - 1)) for n, mode in enumerate(modes)}
    figure, axes = plt.subplots(len(lines), 1, figsize=(11, 2.4 * len(lines) + 0.6), sharex=True, squeeze=False)
    for line, (axis,) in zip(lines, axes, strict=True):
        for from_s, to_s, what in line.stressed:
            axis.axvspan(from_s, to_s, color="0.9", zorder=0)
            axis.text((from_s + to_s) / 2, 0.97, what, ha="center", va="top", fontsize=7, transform=_above(axis))
        found = [(first_s + one.at_s, one) for first_s, answers in line.answers for one in answers]
        for mode in modes:
            points = [(at_s, one.latency_ms) for at_s, one in found if one.status == OK and one.mode == mode]
            axis.scatter(*_columns(points), s=3, color=colours[mode], label=f"{mode} ({modes[mode]:.1%})", linewidths=0)
        refused = [(at_s, one.latency_ms) for at_s, one in found if one.status != OK]
        axis.scatter(*_columns(refused), s=5, color="tab:red", marker="x", label="refused", linewidths=0.5)
        axis.axhline(budget_ms, color="black", linestyle="--", linewidth=0.8)
        axis.set_yscale("log")
        axis.set_ylabel("latency, ms")
        axis.set_title(line.title, fontsize=9, loc="left")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.97), ncols=len(labels), markerscale=3)
    axes[0][0].set_xlim(left=0)
    axes[-1][0].set_xlabel("seconds; stress in grey; dashed: the budget, from the instant the request was due")
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    plt.close(figure)
    write_atomic(path, image.getvalue())


def _above(axis: Any) -> Any:
    """Horizontal positions in seconds, vertical ones in shares of the axis."""
    return axis.get_xaxis_transform()


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [at_s for at_s, _ in points], [ms for _, ms in points]
