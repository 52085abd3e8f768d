"""Accuracy against latency and against energy: what no other mode beats is filled, what one does is hollow."""

from typing import Any, Callable, List, Optional, Sequence

from wenet_runtime.pareto import pareto_front
from wenet_runtime.plots.figure import COLOURS, NothingToDraw, Picture, blank, percents
from wenet_runtime.plots.story import Point, Story


def draw(story: Story) -> Picture:
    """Two panels where energy is known, else one; a bar goes from the median latency to the 95th percentile."""
    timed = [one for one in story.modes if one.p50_ms is not None]
    dear = [one for one in story.modes if one.energy_mj is not None]
    if not timed:
        raise NothingToDraw("no mode's latency is known: give a --profile, or a --report")
    figure, axes = blank(2 if dear else 1, size=(8.4, 3.8) if dear else (5.2, 3.8))
    kept_ms = _panel(axes[0], timed, lambda one: one.p50_ms or 0.0, COLOURS[0], bars=True)
    axes[0].set_xlabel("latency of one image, ms (bar: to the 95th percentile)")
    axes[0].set_title("Accuracy against latency")
    kept_mj: List[Point] = []
    if dear:
        kept_mj = _panel(axes[1], dear, lambda one: one.energy_mj or 0.0, COLOURS[1], bars=False)
        sources = ", ".join(sorted({one.energy_source for one in dear}))
        axes[1].set_xlabel(f"energy of one image, mJ (by {sources})")
        axes[1].set_title("Accuracy against energy")
    rows: List[List[Any]] = [
        [one.id, one.accuracy, one.p50_ms, one.p95_ms, one in kept_ms, one.energy_mj, one.energy_source, one in kept_mj]
        for one in story.modes
    ]
    columns = (
        "mode",
        "accuracy",
        "p50_ms",
        "p95_ms",
        "kept_by_latency",
        "energy_mj",
        "energy_source",
        "kept_by_energy",
    )
    return Picture(figure, columns, rows)


def _panel(
    axis: Any, points: Sequence[Point], cost: Callable[[Point], float], colour: str, *, bars: bool
) -> List[Point]:
    """Draw one; returns the modes that no other dominates."""
    kept = [points[at] for at in pareto_front([(cost(one), one.accuracy) for one in points])]
    others = [one for one in points if one not in kept]
    if bars:
        for one in points:
            _bar(axis, one, colour)
    axis.plot([cost(one) for one in kept], [one.accuracy for one in kept], color=colour, linewidth=1.0, alpha=0.6)
    axis.scatter([cost(one) for one in kept], [one.accuracy for one in kept], color=colour, s=36, zorder=3,
                 label="kept: no other dominates it")  # fmt: skip
    if others:
        axis.scatter([cost(one) for one in others], [one.accuracy for one in others], facecolors="white",
                     edgecolors=colour, s=36, zorder=3, label="dominated")  # fmt: skip
    for one in points:
        axis.annotate(one.id, (cost(one), one.accuracy), xytext=(5, -10), textcoords="offset points", fontsize=8)
    axis.set_xlim(0, 1.15 * max((one.p95_ms or cost(one)) if bars else cost(one) for one in points))
    axis.margins(y=0.15)
    axis.set_ylabel("recorded accuracy")
    percents(axis.yaxis)
    axis.legend(loc="lower right")
    return kept


def _bar(axis: Any, one: Point, colour: str) -> None:
    p50_ms: Optional[float] = one.p50_ms
    if p50_ms is not None and one.p95_ms is not None:
        axis.plot([p50_ms, one.p95_ms], [one.accuracy] * 2, color=colour, linewidth=1.4, alpha=0.5)
