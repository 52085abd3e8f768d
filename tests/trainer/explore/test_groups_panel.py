from dataclasses import replace
from itertools import pairwise

import pytest

from tests.trainer.explore.made_up import LAYERS, frontier
from wenet_trainer.explore.groups_panel import groups_panel, panel_height
from wenet_trainer.plots import canvas, settle


def drawn(modes, names=LAYERS):
    figure = canvas(9, panel_height(len(names)))
    groups_panel(figure.subplots(), modes, names)
    settle(figure)
    return figure.axes[0]


def test_columns_go_from_the_most_accurate_mode_to_the_fastest_and_rows_as_layers_run():
    found = frontier(4, 0, 0)
    axes = drawn(found.modes)
    shown = axes.images[0].get_array().tolist()
    columns = found.modes[::-1]
    assert [2**level for row in shown for level in row] == [mode.groups[name] for name in LAYERS for mode in columns]
    assert [text.get_text() for text in axes.get_yticklabels()] == list(LAYERS)
    assert [text.get_text().splitlines()[0] for text in axes.get_xticklabels()] == ["m3", "m2", "m1", "m0"]


@pytest.mark.parametrize("layers", [3, 60, 300])
def test_names_of_layers_do_not_cover_one_another_however_many_there_are(layers):
    (mode,) = frontier(modes=1).modes
    names = [f"layer.{number}" for number in range(layers)]
    axes = drawn([replace(mode, groups=dict.fromkeys(names, 4))], names)
    renderer = axes.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.get_yticklabels()]
    assert len(boxes) > 2
    assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(boxes))
