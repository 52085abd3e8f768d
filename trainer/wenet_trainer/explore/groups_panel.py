"""Which layers gave way first: the groups of every layer in every mode, as colours."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wenet_trainer.explore.result import FoundMode

GROUPS = (1, 2, 4, 8, 16)

_ROW, _ROWS, _AROUND = 0.2, 8.0, 1.5  # inches: one layer, all of them at most, what stands above and below them
_NAMED = 0.11  # inches: a layer's name needs that much


def panel_height(layers: int) -> float:
    """How many inches the panel takes, with what stands above and below it."""
    return min(_ROWS, _ROW * layers) + _AROUND


def groups_panel(axes: Any, found: Sequence[FoundMode], names: Sequence[str]) -> None:
    """Draw the groups of every layer in every mode.

    Args:
        axes: alone in its figure, which gets a title and a legend.
        found: the modes; columns go from the most accurate to the fastest.
        names: the layers, as they run: rows.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    modes = sorted(found, key=lambda mode: (-mode.accuracy.value, -mode.latency.p50_ms))
    levels = sorted({*GROUPS, *(groups for mode in modes for groups in mode.groups.values())})
    shades = colormaps["viridis"](np.linspace(1.0, 0.0, len(levels)))  # the more groups, the darker
    cells = [[levels.index(mode.groups[name]) for mode in modes] for name in names]
    axes.imshow(cells, ListedColormap(shades), vmin=-0.5, vmax=len(levels) - 0.5, aspect="auto", interpolation="none")
    axes.set_xticks(range(len(modes)), [_heading(mode) for mode in modes], fontsize=min(8.0, 90 / len(modes)))
    height = min(_ROW, _ROWS / len(names))
    shown = range(0, len(names), max(1, math.ceil(_NAMED / height)))
    axes.set_yticks(list(shown), [names[row] for row in shown], fontsize=min(8.0, 60 * height))
    axes.set_xticks(np.arange(len(modes) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=0.5)
    axes.tick_params(which="both", length=0)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set_ylabel("layer, first to last", fontsize=9)
    patches = [
        Patch(facecolor=shade, edgecolor="0.5", label=str(level)) for level, shade in zip(levels, shades, strict=True)
    ]
    axes.figure.legend(handles=patches, title="groups", loc="outside lower center", ncols=len(levels), fontsize=8)
    axes.figure.suptitle("Which layers gave way first", fontsize=11)


def _heading(mode: FoundMode) -> str:
    time_ms = mode.latency.p50_ms
    rounded = f"{time_ms:#.3g}" if time_ms < 100 else f"{time_ms:.0f}"
    return f"{mode.id}\n{mode.precision}\n{100 * mode.accuracy.value:.1f} %\n{rounded} ms"
