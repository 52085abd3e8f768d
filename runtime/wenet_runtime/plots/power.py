"""Power over time, in the colour of the mode that answered, with marks where it changed; below, the temperatures."""

from bisect import bisect_right
from typing import Any, Dict, List, Optional, Sequence, Tuple

from wenet_runtime.plots.figure import COLOURS, NothingToDraw, Picture, blank, legend, mode_colours
from wenet_runtime.plots.story import SIMULATED, Gauge, Story

UNKNOWN = "#bdbdbd"  # between readings in which no mode answered
MOST_ZONES = 6
FINE_MARKS = 200  # more switches than this are drawn as thin lines


def draw(story: Story) -> Picture:
    """The readings of the first rail, joined; a piece has the colour of the mode that answered most of its requests."""
    gauges = [one for one in story.gauges if one.power_w]
    if len(gauges) < 2:
        raise NothingToDraw("there are no readings of power: give a --report of a server that has a meter")
    rail = sorted(gauges[0].power_w)[0]
    points = [(one.at_s, one.power_w[rail]) for one in gauges if rail in one.power_w]
    zones = _zones(story.gauges)
    figure, axes = blank(2 if zones else 1, stacked=True, size=(7.2, 4.8 if zones else 3.6))
    colours = mode_colours(story.mode_ids)
    moments = [at_s for at_s, _ in story.decided]
    pieces = [_mode_between(story.decided, moments, first[0], last[0]) for first, last in zip(points, points[1:])]
    _trace(axes[0], points, pieces, colours)
    switches = _switches(story.decided, points[0][0], points[-1][0])
    _marks(axes[0], switches, colours)
    made_up = " (SIMULATED)" if story.source == SIMULATED else ""
    axes[0].set_ylabel("power, W")
    axes[0].set_ylim(bottom=0)
    axes[0].set_title(f"Power by {story.source or rail}{made_up}, {len(switches)} changes of mode")
    legend(axes[0], title="mode that answered")
    if zones:
        _heat(axes[1], story.gauges, zones)
    axes[-1].set_xlabel("seconds")
    rows: List[List[Any]] = [
        [at_s, watts, pieces[number - 1] if number else None] for number, (at_s, watts) in enumerate(points)
    ]
    return Picture(figure, ("at_s", f"{rail}_w", "mode_since_the_reading_before"), rows)


def _mode_between(
    decided: Sequence[Tuple[float, str]], moments: Sequence[float], from_s: float, to_s: float
) -> Optional[str]:
    """The mode that was decided most often in between; else the last before, if it was just before."""
    found = [mode for _, mode in decided[bisect_right(moments, from_s) : bisect_right(moments, to_s)]]
    return max(sorted(set(found)), key=found.count) if found else None


def _trace(
    axis: Any, points: Sequence[Tuple[float, float]], pieces: Sequence[Optional[str]], colours: Dict[str, Any]
) -> None:
    from matplotlib.collections import LineCollection

    for mode in [*colours, None]:
        lines = [ends for *ends, piece in zip(points, points[1:], pieces) if piece == mode]
        if lines:
            colour = UNKNOWN if mode is None else colours[mode]
            axis.add_collection(
                LineCollection(lines, colors=[colour], linewidths=2.2, capstyle="round", label=mode or "none")
            )
    axis.autoscale_view()


def _switches(decided: Sequence[Tuple[float, str]], from_s: float, to_s: float) -> List[Tuple[float, str]]:
    """(when, to which mode) for each change within the picture."""
    pairs = zip(decided, decided[1:])
    return [(at_s, mode) for (_, before), (at_s, mode) in pairs if mode != before and from_s <= at_s <= to_s]


def _marks(axis: Any, switches: Sequence[Tuple[float, str]], colours: Dict[str, Any]) -> None:
    if not switches:
        return
    thin = len(switches) > FINE_MARKS
    axis.scatter(
        [at_s for at_s, _ in switches],
        [0.03] * len(switches),
        color=[colours[mode] for _, mode in switches],
        marker="|" if thin else "^",
        s=40 if thin else 28,
        linewidths=0.3 if thin else 0,
        transform=axis.get_xaxis_transform(),
        label="change to a mode",
        zorder=3,
        rasterized=thin,
    )


def _zones(gauges: Sequence[Gauge]) -> List[str]:
    """The hottest zones that were read twice or more."""
    found: Dict[str, List[float]] = {}
    for one in gauges:
        for zone, degrees in one.temperature_c.items():
            found.setdefault(zone, []).append(degrees)
    known = [zone for zone, values in found.items() if len(values) > 1]
    return sorted(known, key=lambda zone: -max(found[zone]))[:MOST_ZONES]


def _heat(axis: Any, gauges: Sequence[Gauge], zones: Sequence[str]) -> None:
    for number, zone in enumerate(zones):
        known = [(one.at_s, one.temperature_c[zone]) for one in gauges if zone in one.temperature_c]
        axis.plot(*zip(*known), color=COLOURS[number % len(COLOURS)], linewidth=1.4, label=zone)
    axis.set_ylabel("temperature, °C")
    legend(axis)
