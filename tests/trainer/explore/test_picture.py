import xml.etree.ElementTree
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from tests.trainer.explore.made_up import LAYERS, frontier, peer
from wenet_trainer.explore.picture import CANDIDATE, DROPPED, PRECISIONS, draw, write_pictures
from wenet_trainer.explore.result import read_frontier, write_frontier
from wenet_trainer.explore.sheet import sheet


def labels_of(axes):
    """Where each mode's name stands, in pixels."""
    renderer = axes.figure.canvas.get_renderer()
    return {text.get_text(): Text.get_window_extent(text, renderer) for text in axes.texts}


def markers(axes, color, filled):
    """The points drawn with markers of a colour, filled or hollow; the legend's samples have none."""
    found = []
    for line in axes.lines:
        own = line.get_marker() not in ("", "None", "|", "_") and line.get_markeredgecolor() == color
        if own and (line.get_markerfacecolor() == color) == filled:
            found += [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
    return found


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(frontier(8, 250, seed=1, energy=True), id="eight modes, energy"),
        pytest.param(frontier(8, 250, seed=2), id="eight modes"),
        pytest.param(frontier(2, 0, 0), id="two modes and nothing else"),
        pytest.param(frontier(5, 20, equal_times=True), id="equal times"),
    ],
)
def test_the_names_of_the_modes_cover_neither_one_another_nor_the_border(found):
    figure = draw(found, [peer()])
    panels = [axes for axes in figure.axes if axes.texts]
    assert len(panels) == (2 if found.modes[0].energy_mj else 1)
    for axes in panels:
        labels, inside = labels_of(axes), axes.get_window_extent()
        assert set(labels) == {mode.id for mode in found.modes}
        for one, other in combinations(labels.values(), 2):
            assert not one.overlaps(other)
        for box in labels.values():
            assert box.x0 >= inside.x0
            assert box.x1 <= inside.x1
            assert box.y0 >= inside.y0
            assert box.y1 <= inside.y1


def test_kept_modes_are_filled_by_precision_and_what_is_not_kept_is_hollow():
    found = frontier(4, 9, 3)
    axes = draw(found, [peer()], LAYERS).axes[0]
    for precision in ("fp32", "int8", "bf16"):
        wanted = [
            (mode.latency.p50_ms, 100 * mode.accuracy.value) for mode in found.modes if mode.precision == precision
        ]
        assert markers(axes, PRECISIONS[precision][1], filled=True) == wanted
    assert markers(axes, CANDIDATE, filled=False) == [(p.latency_ms, 100 * p.accuracy) for p in found.points]
    assert markers(axes, DROPPED, filled=False) == [(d.latency.p50_ms, 100 * d.accuracy.value) for d in found.dropped]
    texts = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert texts == [
        "tried by the search (480 images)",
        "kept, fp32 (1000 images)",
        "kept, int8 (1000 images)",
        "kept, bf16 (1000 images)",
        "finalists that were dropped",
        "us-net",
    ]
    assert axes.get_xlim()[1] < found.reference.latency_ms
    assert axes.get_ylim()[0] > 100 * found.reference.accuracy


def test_energy_has_a_panel_that_names_its_source_where_a_mode_has_one():
    without, known = draw(frontier(3, 5)), draw(frontier(3, 5, energy=True), [peer()])
    assert [axes.get_xlabel() for axes in without.axes] == ["time of one image, ms (p50, to p95)", ""]
    assert known.axes[1].get_xlabel() == "energy of one image, mJ (rapl)"
    assert markers(known.axes[1], "#000000", filled=True) == []  # nobody measured the peer's energy


def test_every_other_device_has_a_panel_of_its_tables_predictions_and_no_figure_of_one_stands_on_the_axis_of_another():
    found = frontier(4, 9, 2)
    modes = tuple(
        replace(mode, predicted_ms={"nano": 40 * mode.latency.p50_ms, "orin": 9 * mode.latency.p50_ms})
        for mode in found.modes
    )
    here = draw(replace(found, tables=(found.device,))).axes
    assert len(here) == 2
    here, nano, _ = draw(replace(found, tables=("nano",), modes=modes), [peer()]).axes
    assert nano.get_xlabel() == "predicted time of one image, ms\nnano"
    predicted = [(40 * m.latency.p50_ms, 100 * m.accuracy.value) for m in found.modes if m.precision == "fp32"]
    assert markers(nano, PRECISIONS["fp32"][1], filled=True) == predicted
    assert not np.isfinite(markers(nano, PRECISIONS["int8"][1], filled=True)).all(axis=1).any()  # tables are of fp32
    assert len(markers(nano, CANDIDATE, filled=False)) == 9
    assert markers(here, CANDIDATE, filled=False) == []
    assert markers(nano, "#000000", filled=True) == []  # the peer was timed here
    panels = draw(replace(found, tables=("nano", "orin"), modes=modes)).axes
    assert [axes.get_xlabel().splitlines()[-1] for axes in panels[1:-1]] == ["nano", "orin"]
    assert not any(markers(axes, CANDIDATE, filled=False) for axes in panels)  # whose figure it is is not known


def test_one_long_whisker_does_not_squeeze_everything_else():
    found = frontier(4, 9, 2)
    slow = replace(found.modes[-1], latency=replace(found.modes[-1].latency, p95_ms=50.0))
    axes = draw(replace(found, modes=(*found.modes[:-1], slow)), [peer()]).axes[0]
    medians = [mode.latency.p50_ms for mode in found.modes] + [p.latency_ms for p in (*found.points, *peer().points)]
    low, high = axes.get_xlim()
    assert low < min(medians)
    assert max(medians) < high < max(medians) + 0.4 * (max(medians) - min(medians))


def test_the_same_frontier_gives_the_same_three_files_also_when_read_from_its_own(tmp_path):
    found = frontier(4, 30, energy=True)
    write_frontier(tmp_path / "frontier.json", found)
    once = write_pictures(found, tmp_path / "once", [peer()])
    again = write_pictures(read_frontier(tmp_path / "frontier.json"), tmp_path / "again", [peer()])
    assert [path.name for path in once] == ["frontier.png", "frontier.svg", "frontier.csv"]
    for left, right in zip(once, again, strict=True):
        assert left.read_bytes() == right.read_bytes()
    assert xml.etree.ElementTree.parse(once[1]).getroot().tag.endswith("svg")
    assert b"<dc:date>" not in once[1].read_bytes()
    assert once[2].read_text() == sheet(found, [peer()])
    with Image.open(once[0]) as picture:
        assert picture.size[0] == 1080
