"""A frontier as a picture: what modes cost, how right they are, and which layers gave way first.

`draw` makes the figure, `write_pictures` the files. Nothing here measures.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from wenet_runtime.bundle import Accuracy
from wenet_runtime.files import write_atomic
from wenet_runtime.pareto import pareto_front
from wenet_trainer.explore.beside import PeerCurve
from wenet_trainer.explore.groups_panel import groups_panel, panel_height
from wenet_trainer.explore.result import Dropped, FoundMode, Frontier, Point
from wenet_trainer.explore.sheet import run_order, sheet
from wenet_trainer.plots import Boxes, canvas, place_labels, save, settle

NAME = "frontier"

# Colours of Okabe and Ito, which stay apart without red and green; a shape each.
PRECISIONS = {"fp32": ("o", "#0072B2"), "bf16": ("s", "#009E73"), "fp16": ("^", "#56B4E9"), "int8": ("D", "#D55E00")}
OTHER_PRECISION = ("P", "#000000")
CANDIDATE, DROPPED = "#9A9A9A", "#CC79A7"
PEERS = (("#000000", "--", "v"), ("#8A6D00", ":", "<"), ("#5B3A8C", "-.", ">"))

_WIDTH, _UPPER, _FURTHER = 9.0, 4.6, 3.6  # inches: the picture, its upper part, a further row of panels there
_BEYOND = 0.25  # whiskers may widen the picture by this share of what medians span, else one would squeeze the rest


@dataclass(frozen=True)
class _Cost:
    """What stands on the x axis of an upper panel.

    Attributes:
        label: of the axis.
        device: whose table predicts it; None: it is measured here.
        energy: millijoules instead of milliseconds.
        searched: whether the search's own figures are of this kind and of this device.
    """

    label: str
    device: str | None = None
    energy: bool = False
    searched: bool = True

    @property
    def timed_here(self) -> bool:
        """Whether whiskers and peers, which are timed here, belong to it."""
        return self.device is None and not self.energy

    def of(self, found: FoundMode | Dropped | Point) -> float:
        """Not a number where it is unknown."""
        if isinstance(found, Point) and not self.searched:
            return math.nan
        if self.energy:
            return math.nan if found.energy_mj is None else found.energy_mj
        if isinstance(found, Point):
            return found.latency_ms
        if self.device is None:
            return found.latency.p50_ms
        if isinstance(found, Dropped) or found.precision != "fp32":  # tables are of fp32
            return math.nan
        return found.predicted_ms.get(self.device, math.nan)

    def whisker(self, found: FoundMode | Dropped) -> float:
        """How far it reaches to the right."""
        return found.latency.p95_ms - found.latency.p50_ms if self.timed_here else 0.0


def _costs(frontier: Frontier) -> list[_Cost]:
    """The time here, the time on every other device whose table the search went by, the energy where it is known."""
    others = [device for device in frontier.tables if device != frontier.device]
    costs = [_Cost("time of one image, ms (p50, to p95)", searched=not others)]
    for device in others:
        # With several, a candidate's figure does not say whose it is.
        name = textwrap.fill(device, 50)
        costs.append(_Cost(f"predicted time of one image, ms\n{name}", device, searched=len(others) == 1))
    sources = sorted({mode.energy_source for mode in frontier.modes if mode.energy_mj is not None})
    if sources:
        label = f"energy of one image, mJ ({', '.join(sources)})"
        costs.append(_Cost(label, energy=True, searched=not others))
    return costs


def write_pictures(
    frontier: Frontier, folder: Path, peers: Sequence[PeerCurve] = (), *, layers: Sequence[str] = ()
) -> tuple[Path, Path, Path]:
    """Write `frontier.png`, `frontier.svg` and `frontier.csv`; the same frontier gives the same bytes.

    Args:
        frontier: what is shown.
        folder: where the files go.
        peers: curves to show beside it.
        layers: names in the order in which they run, see `sheet.run_order`.

    Returns:
        The three files.
    """
    png, svg, text = (folder / f"{NAME}.{kind}" for kind in ("png", "svg", "csv"))
    figure = draw(frontier, peers, layers)
    save(figure, png)
    save(figure, svg)
    write_atomic(text, sheet(frontier, peers, layers).encode())
    return png, svg, text


def draw(frontier: Frontier, peers: Sequence[PeerCurve] = (), layers: Sequence[str] = ()) -> Any:
    """The picture as a matplotlib figure; arguments as for `write_pictures`.

    Above, accuracy over latency, and over energy where that is known; below, every layer's groups in every mode.
    """
    costs, names = _costs(frontier), run_order(frontier, layers)
    rows, columns = math.ceil(len(costs) / 2), min(2, len(costs))
    upper_height, lower_height = _UPPER + (rows - 1) * _FURTHER, panel_height(len(names))
    figure = canvas(_WIDTH, upper_height + lower_height)
    upper, lower = figure.subfigures(2, 1, height_ratios=(upper_height, lower_height))
    grid = upper.subplots(rows, columns, sharey=True, squeeze=False)
    panels = list(zip(grid.flat, costs, strict=False))
    for spare in grid.flat[len(costs) :]:
        spare.remove()
    for axes, cost in panels:
        _points(axes, cost, frontier, peers)
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy, % (95 % interval)")
    upper.suptitle(textwrap.fill(f"{frontier.data} on {frontier.device}", 90), fontsize=11)
    shown = [axes.get_legend_handles_labels() for axes, _ in panels]
    legend = {text: handle for handles, texts in shown for handle, text in zip(handles, texts, strict=True)}
    upper.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=3, fontsize=8)
    groups_panel(lower.subplots(), frontier.modes, names)
    settle(figure)
    for axes, cost in panels:
        _names(axes, cost, frontier, peers)
    return figure


def _points(axes: Any, cost: _Cost, frontier: Frontier, peers: Sequence[PeerCurve]) -> None:
    searched = [(cost.of(point), 100 * point.accuracy) for point in frontier.points]
    if frontier.points and cost.searched:
        axes.plot(*_columns(searched), "o", ms=3.5, mfc="none", mec=CANDIDATE, mew=0.7, zorder=1,
                  label=f"tried by the search ({frontier.search_images} images)")  # fmt: skip
    for peer, (color, line, shape) in zip(peers, cycle(PEERS), strict=False):
        if cost.timed_here:
            values = [point.accuracy for point in peer.points]
            axes.errorbar([point.latency_ms for point in peer.points], [100 * value.value for value in values],
                          yerr=_interval(values), color=color, ls=line, marker=shape, ms=4, lw=1, elinewidth=0.7,
                          zorder=2, label=peer.name)  # fmt: skip
    for found in _finalists(frontier):
        shape, color = PRECISIONS.get(found.precision, OTHER_PRECISION)
        kept = isinstance(found, FoundMode)
        color = color if kept else DROPPED
        place, above = [cost.of(found)], 4 if kept else 3
        axes.errorbar(place, [100 * found.accuracy.value], xerr=[[0.0], [cost.whisker(found)]], fmt="none",
                      ecolor=color, alpha=0.5, capsize=2, elinewidth=0.8, zorder=above - 1)  # fmt: skip
        axes.errorbar(place, [100 * found.accuracy.value], yerr=_interval([found.accuracy]), fmt=shape, color=color,
                      ms=6.5 if kept else 5.5, mfc=color if kept else "white", capsize=2, elinewidth=1,
                      zorder=above)  # fmt: skip
    axes.plot(*_columns(_front(cost, frontier)), drawstyle="steps-post", color="0.45", lw=0.9, zorder=2)
    # The legend names each kind once, whatever was drawn above.
    for precision in dict.fromkeys(mode.precision for mode in frontier.modes):
        shape, color = PRECISIONS.get(precision, OTHER_PRECISION)
        axes.plot([], [], shape, color=color, label=f"kept, {precision} ({frontier.modes[0].accuracy.images} images)")
    if frontier.dropped:
        axes.plot([], [], "o", color=DROPPED, mfc="white", label="finalists that were dropped")
    axes.set_xlabel(cost.label)
    axes.grid(alpha=0.3)
    axes.margins(y=0.12)
    _limit(axes, cost, frontier, peers)


def _limit(axes: Any, cost: _Cost, frontier: Frontier, peers: Sequence[PeerCurve]) -> None:
    """All points lie inside; a whisker much longer than the others leaves at the right."""
    finalists = [found for found in _finalists(frontier) if not math.isnan(cost.of(found))]
    places = [*map(cost.of, finalists), *(cost.of(point) for point in frontier.points)]
    places += [point.latency_ms for peer in peers for point in peer.points if cost.timed_here]
    known = [place for place in places if not math.isnan(place)]
    if known:
        low, high = min(known), max(known)
        span = high - low or 0.2 * high
        ends = [cost.of(found) + cost.whisker(found) for found in finalists]
        end = min(max([high, *ends]), high + _BEYOND * span)
        axes.set_xlim(low - 0.07 * span, end + 0.07 * span)


def _front(cost: _Cost, frontier: Frontier) -> list[tuple[float, float]]:
    """(cost, accuracy in %) of the modes that are best at what they cost, by ascending cost."""
    known = [(cost.of(mode), 100 * mode.accuracy.value) for mode in frontier.modes if not math.isnan(cost.of(mode))]
    return [known[index] for index in pareto_front(known)]


def _finalists(frontier: Frontier) -> list[FoundMode | Dropped]:
    """Modes last, so that they are drawn above."""
    return [*frontier.dropped, *frontier.modes]


def _names(axes: Any, cost: _Cost, frontier: Frontier, peers: Sequence[PeerCurve]) -> None:
    bars: list[tuple[float, float, float, float]] = []
    for found in _finalists(frontier):
        x, accuracy = cost.of(found), found.accuracy
        bars.append((x, 100 * accuracy.ci_low, x, 100 * accuracy.ci_high))
        bars.append((x, 100 * accuracy.value, x + cost.whisker(found), 100 * accuracy.value))
    for (x, y), (until, above) in pairwise(_front(cost, frontier)):  # the steps between them
        bars += [(x, y, until, y), (until, y, until, above)]
    dots = [(cost.of(point), 100 * point.accuracy) for point in frontier.points]
    if cost.timed_here:
        for point in (point for peer in peers for point in peer.points):
            accuracy = point.accuracy
            bars.append((point.latency_ms, 100 * accuracy.ci_low, point.latency_ms, 100 * accuracy.ci_high))
    taken: Boxes = np.array(bars).reshape(-1, 4)
    marks: Boxes = np.array(dots).reshape(-1, 2)
    labels = [(mode.id, cost.of(mode), 100 * mode.accuracy.value) for mode in frontier.modes]
    place_labels(
        axes,
        [label for label in labels if not math.isnan(label[1])],
        taken[~np.isnan(taken).any(axis=1)],
        marks[~np.isnan(marks).any(axis=1)],
    )


def _interval(values: Sequence[Accuracy]) -> list[list[float]]:
    """Below and above, in points, as error bars want them."""
    return [[100 * (v.value - v.ci_low) for v in values], [100 * (v.ci_high - v.value) for v in values]]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
