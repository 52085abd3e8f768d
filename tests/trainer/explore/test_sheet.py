import csv
import io
from dataclasses import replace

import pytest

from tests.trainer.explore.made_up import LAYERS, frontier, peer
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.result import read_frontier, write_frontier
from wenet_trainer.explore.sheet import COLUMNS, run_order, sheet


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_every_mode_dropped_finalist_width_and_candidate_has_a_row_with_its_figures():
    found = frontier(modes=3, points=5, dropped=2, energy=True)
    rows = rows_of(sheet(found, [peer()]))
    assert tuple(rows[0]) == COLUMNS
    assert [row["kind"] for row in rows] == ["mode"] * 3 + ["dropped"] * 2 + ["peer"] * 4 + ["candidate"] * 5
    for row, mode in zip(rows, found.modes, strict=False):
        assert (row["id"], row["precision"], row["found_by"]) == (mode.id, mode.precision, "polish")
        numbers = [float(row[name]) for name in ("accuracy", "ci_low", "ci_high", "p50_ms", "p95_ms", "p99_ms")]
        accuracy, latency = mode.accuracy, mode.latency
        assert numbers[:3] == [accuracy.value, accuracy.ci_low, accuracy.ci_high]
        assert numbers[3:] == [latency.p50_ms, latency.p95_ms, latency.p99_ms]
        assert float(row["energy_mj"]) == mode.energy_mj
        assert [int(row[name]) for name in ("images", "macs", "params")] == [1000, mode.macs, mode.params]
        assert {n: int(g) for n, g in (pair.split("=") for pair in row["groups"].split(";"))} == mode.groups
    assert rows[3]["why"] == 'not faster than "m1", by 3 %'
    assert (rows[5]["id"], rows[5]["groups"], rows[5]["p95_ms"]) == ("us-net", "width=1", "")
    assert (rows[-1]["images"], rows[-1]["ci_low"], rows[-1]["found_by"]) == ("480", "", "programme")
    assert float(rows[-1]["accuracy"]) == found.points[-1].accuracy


def test_what_is_not_known_is_empty():
    found = frontier(modes=2, points=1, dropped=1)
    known = replace(found, points=(replace(found.points[0], groups=found.dropped[0].groups),))
    assert {row["energy_mj"] for row in rows_of(sheet(found))} == {""}
    assert rows_of(sheet(found))[2]["macs"] == ""
    assert rows_of(sheet(known))[2]["macs"] == str(found.points[0].macs)  # a candidate had the same groups


def test_a_frontier_read_from_its_file_gives_the_same_text(tmp_path):
    found = frontier()
    write_frontier(tmp_path / "frontier.json", found)
    assert sheet(read_frontier(tmp_path / "frontier.json")) == sheet(found)


def test_layers_stand_in_the_given_order_or_sorted_by_the_numbers_in_their_names():
    found = frontier(modes=2)
    assert run_order(found) == ("head", "stages.0.conv", "stages.1.conv", "stages.2.conv", "stages.10.conv", "stem")
    assert run_order(found, LAYERS) == LAYERS
    assert rows_of(sheet(found, layers=LAYERS))[1]["groups"].startswith("stem=1;stages.0.conv=1;")
    for wrong in (LAYERS[:-1], (*LAYERS[:-1], "tail")):
        with pytest.raises(ExploreError, match="the order names other layers"):
            run_order(found, wrong)
