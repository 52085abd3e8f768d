"""What was predicted against what was measured, of every request that ran."""

from typing import Any, List

import numpy as np

from wenet_runtime.plots.figure import GREY, MARKERS, NothingToDraw, Picture, blank, legend, mode_colours, plain_numbers
from wenet_runtime.plots.story import Story

BAND = 1.25  # the grey band: a quarter more or less


def draw(story: Story) -> Picture:
    """One point a request in its mode's colour; on the line the prediction was exact."""
    found = [
        (one.mode or "", one.predicted_ms, one.measured_ms)
        for one in story.events
        if one.predicted_ms is not None and one.measured_ms is not None and min(one.predicted_ms, one.measured_ms) > 0
    ]
    if not found:
        raise NothingToDraw("no request has both a prediction and a measurement")
    predicted = np.array([one[1] for one in found])
    measured = np.array([one[2] for one in found])
    figure, (axis,) = blank(size=(6.2, 4.6))
    low, high = min(predicted.min(), measured.min()) / 1.2, max(predicted.max(), measured.max()) * 1.2
    line = np.array([low, high])
    axis.fill_between(line, line / BAND, line * BAND, color="#eeeeee", linewidth=0, zorder=0, label="within 25%")
    axis.plot(line, line, color=GREY, linewidth=1.0, label="exact")
    colours = mode_colours(story.mode_ids)
    for number, mode in enumerate(story.mode_ids):
        at = [index for index, one in enumerate(found) if one[0] == mode]
        if at:
            look = {"color": colours[mode], "marker": MARKERS[number % len(MARKERS)], "s": 9, "alpha": 0.5}
            label = f"{mode} ({len(at)})"
            axis.scatter(predicted[at], measured[at], linewidths=0, label=label, rasterized=True, **look)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(low, high)
    axis.set_ylim(low, high)
    plain_numbers(axis.xaxis)
    plain_numbers(axis.yaxis)
    axis.set_xlabel("predicted, ms")
    axis.set_ylabel("measured, ms")
    errors = np.abs(measured / predicted - 1)
    axis.set_title(f"Predicted against measured: half are off by at most {np.median(errors):.1%}")
    legend(axis, title="mode (requests)")
    rows: List[List[Any]] = [list(one) for one in found]
    return Picture(figure, ("mode", "predicted_ms", "measured_ms"), rows)
