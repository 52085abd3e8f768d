"""Time and energy of an image by the batch's size, as in the paper's Fig. 7."""

from collections import defaultdict
from typing import Any, Dict, List, Tuple

import numpy as np

from wenet_runtime.plots.figure import MARKERS, NothingToDraw, Picture, blank, legend, mode_colours
from wenet_runtime.plots.story import Point, Story


def draw(story: Story) -> Picture:
    """Energy is measured for one image; for a batch it is what a decision log measured (filled), or an estimate."""
    swept = [one for one in story.modes if one.batch_ms and one.p50_ms]
    if not swept:
        raise NothingToDraw("no batches were measured: `wenet-runtime profile --batch-sizes 1,2,4,8 --out FILE`")
    measured = _measured(story)
    with_energy = [one for one in swept if one.energy_mj]
    figure, axes = blank(2 if with_energy else 1, size=(9.0, 3.8) if with_energy else (6.0, 3.8))
    colours = mode_colours(story.mode_ids)
    rows: List[List[Any]] = []
    for number, one in enumerate(swept):
        style = {"color": colours[one.id], "marker": MARKERS[number % len(MARKERS)], "markersize": 5}
        each_ms = _each_ms(one)
        axes[0].plot(list(each_ms), list(each_ms.values()), label=one.id, linewidth=1.4, **style)
        estimated = _estimates(one, each_ms)
        if estimated:
            axes[1].plot(list(estimated), list(estimated.values()), linestyle="--", linewidth=1.0,
                         markerfacecolor="white", label=one.id, **style)  # fmt: skip
            known = {1: float(one.energy_mj or 0.0), **measured.get(one.id, {})}
            axes[1].plot(list(known), list(known.values()), linestyle="", **style)
        for size, ms in each_ms.items():
            rows.append([one.id, size, ms, estimated.get(size), measured.get(one.id, {}).get(size)])
    sizes = sorted({size for one in swept for size in _each_ms(one)})
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel("images in a batch")
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("time of an image, ms")
    axes[0].set_title("Time")
    if with_energy:
        sources = ", ".join(sorted({one.energy_source for one in with_energy}))
        axes[1].set_ylabel(f"energy of an image, mJ (by {sources})")
        axes[1].set_title("Energy; hollow: estimated at one image's power")
    legend(axes[-1], title="mode")
    columns = ("mode", "batch", "ms_an_image", "estimated_mj_an_image", "measured_mj_an_image")
    return Picture(figure, columns, rows)


def _each_ms(one: Point) -> Dict[int, float]:
    """Time of an image by the batch's size."""
    known = {1: one.p50_ms or 0.0, **one.batch_ms}
    return {size: known[size] / size for size in sorted(known)}


def _estimates(one: Point, each_ms: Dict[int, float]) -> Dict[int, float]:
    """Energy of an image if a batch draws the power that one image draws; empty where that is unknown."""
    if not one.energy_mj:
        return {}
    return {size: one.energy_mj * ms / each_ms[1] for size, ms in each_ms.items()}


def _measured(story: Story) -> Dict[str, Dict[int, float]]:
    """Median energy of a row by mode and batch, from what ran."""
    found: Dict[Tuple[str, int], List[float]] = defaultdict(list)
    for one in story.decisions:
        if one.mode is not None and one.energy_mj is not None and one.rows:
            found[one.mode, one.rows].append(one.energy_mj)
    medians: Dict[str, Dict[int, float]] = defaultdict(dict)
    for (mode, rows), values in sorted(found.items()):
        medians[mode][rows] = float(np.median(values))
    return medians
