"""A layer table predicts what it was never shown, stops when it does, and never measures a row again."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from tests.runtime.boards import Board, WattMeter, true_ms
from tests.supernets import bottlenecks, make_supernet, uniform
from wenet_runtime.conditions import Conditions
from wenet_runtime.device import this_device
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import BundleError, EngineError
from wenet_runtime.layer_profiler import LEAST_ROWS, profile_layers
from wenet_runtime.layer_table import LayerTable, read_table

SUPERNET = bottlenecks(32, 48)
DEVICE = this_device("board", "1", 1)
Profile = Callable[..., LayerTable]


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    return Board(SUPERNET, noise=0.01).install(monkeypatch)


@pytest.fixture
def profile(board: Board, tmp_path: Path) -> Profile:
    """`profile_layers` on the board, into one file."""

    def profiled(**how: Any) -> LayerTable:
        given = {"emitted": lambda groups: {}, "device": DEVICE, "path": tmp_path / "layers.json", "rounds": 5}
        given["conditions"] = Conditions
        table = profile_layers(how.pop("supernet", SUPERNET), board, **{**given, **how})
        board.close()  # nothing is left open
        return table

    return profiled


def configurations_loaded(board: Board) -> int:
    return sum(name.startswith("configuration") for name in board.loads)


def test_configurations_that_were_never_measured_are_predicted(board: Board, profile: Profile) -> None:
    table = profile(most_rows=80, target=1e-9)
    random = np.random.default_rng(5)
    drawn = [{layer.name: int(random.choice(layer.groups)) for layer in SUPERNET.layers} for _ in range(50)]
    errors = [abs(table.latency_ms(one) / true_ms(SUPERNET, one) - 1) for one in drawn]
    assert np.median(errors) < 0.02
    assert np.percentile(errors, 95) < 0.05


def test_the_table_says_what_it_was_measured_on(board: Board, profile: Profile, tmp_path: Path) -> None:
    table = profile(most_rows=20, model="three blocks", seed=4)
    assert table == read_table(tmp_path / "layers.json")
    assert (table.model, table.device, table.seed, table.finished) == ("three blocks", DEVICE, 4, True)
    assert table.started_at <= table.measured_at
    assert table.full_ms == pytest.approx(true_ms(SUPERNET, uniform(SUPERNET, 1)), rel=0.05)
    assert (table.energy, table.energy_source, table.warning) == (None, "none", None)
    assert len(table.rows) == table.error.rows == 20
    assert table.drift < 0.05


def test_measuring_ends_when_rows_predict_one_another(board: Board, profile: Profile) -> None:
    table = profile(most_rows=150, target=0.03)
    assert LEAST_ROWS <= len(table.rows) < 150
    assert table.error.median_high <= 0.03


def test_a_finished_table_is_not_measured_again(board: Board, profile: Profile, tmp_path: Path) -> None:
    first = profile(most_rows=20)
    written = (tmp_path / "layers.json").read_bytes()
    board.loads.clear()
    assert profile(most_rows=20) == first
    assert board.loads == []
    assert (tmp_path / "layers.json").read_bytes() == written


def test_more_rows_may_be_asked_for_later(board: Board, profile: Profile) -> None:
    few = profile(most_rows=20, target=1e-9)
    board.loads.clear()
    many = profile(most_rows=30, target=1e-9)
    assert many.rows[:20] == few.rows
    assert configurations_loaded(board) == 10


@pytest.mark.parametrize("killed_at", [1, 20])
def test_a_kill_after_any_row_repeats_nothing(
    killed_at: int, board: Board, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(done: int, total: int) -> None:
        assert total == 25
        if done == killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile(most_rows=25, target=1e-9, progress=kill)
    assert board.opened == 0
    kept = read_table(tmp_path / "layers.json")
    assert (len(kept.rows), kept.finished) == (killed_at, False)
    table = profile(most_rows=25, target=1e-9)
    assert table.rows[:killed_at] == kept.rows
    assert configurations_loaded(board) == len(table.rows) == 25
    assert table.started_at == kept.started_at

    board.noise = 0.0  # without noise, resumed or not is all the same
    resumed, whole = tmp_path / "resumed.json", tmp_path / "whole.json"
    with pytest.raises(KeyboardInterrupt):
        profile(most_rows=25, target=1e-9, progress=kill, path=resumed)
    one = profile(most_rows=25, target=1e-9, path=resumed)
    other = profile(most_rows=25, target=1e-9, path=whole)
    assert one.latency == other.latency
    assert [row.groups for row in one.rows] == [row.groups for row in other.rows]


def test_a_kill_while_a_row_is_measured_leaves_nothing_open_and_keeps_the_rows(
    board: Board, profile: Profile, tmp_path: Path
) -> None:
    def emitted(groups: Any) -> Any:
        if configurations_loaded(board) == 3:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        profile(most_rows=25, emitted=emitted)
    assert board.opened == 0
    assert len(read_table(tmp_path / "layers.json").rows) == 3


def test_energy_is_predicted_where_a_meter_answers(board: Board, profile: Profile) -> None:
    table = profile(most_rows=40, meter=WattMeter(5.0), target=1e-9)
    assert table.energy_source == "rail:test"
    assert table.energy_error is not None
    groups = {layer.name: 4 for layer in SUPERNET.layers}
    assert table.energy_mj(groups) == pytest.approx(5.0 * true_ms(SUPERNET, groups), rel=0.05)


def test_a_meter_that_knows_nothing_gives_no_energy(board: Board, profile: Profile) -> None:
    table = profile(most_rows=3, meter=WattMeter(None))
    assert (table.energy, table.energy_error, table.energy_source) == (None, None, "none")


def test_a_machine_that_stays_slower_is_said_to_and_its_ratios_still_count(board: Board, profile: Profile) -> None:
    pauses = []

    def slow_down(done: int, total: int) -> None:
        board.slowdown = 1.5 if done >= 10 else 1.0

    table = profile(most_rows=30, progress=slow_down, pause=pauses.append, target=1e-9)
    assert pauses  # it waited, once
    assert table.warning is not None
    assert "row 10" in table.warning
    assert table.drift == pytest.approx(0.5, abs=0.05)
    assert table.error.median < 0.05


def test_a_space_of_few_configurations_is_measured_whole(board: Board, tmp_path: Path) -> None:
    layers = tuple(
        dataclasses.replace(layer, groups=layer.groups[: 2 if number < 2 else 1])
        for number, layer in enumerate(SUPERNET.layers)
    )
    small = dataclasses.replace(SUPERNET, layers=layers)
    for _ in range(2):
        table = profile_layers(
            small, board, emitted=lambda groups: {}, device=DEVICE, path=tmp_path / "few.json", rounds=3
        )
    assert len(table.rows) == configurations_loaded(board) == 3


def test_a_file_of_another_network_or_device_is_left_as_it_is(board: Board, profile: Profile, tmp_path: Path) -> None:
    profile(most_rows=3)
    before = (tmp_path / "layers.json").read_bytes()
    with pytest.raises(BundleError, match=r"layers\.json cannot be gone on with.*remove"):
        profile(supernet=make_supernet())
    with pytest.raises(EngineError, match=r"threads is 4 and not 1.*remove"):
        profile(device=dataclasses.replace(DEVICE, threads=4))
    (tmp_path / "layers.json").write_bytes(before[:50])
    with pytest.raises(EngineError, match="not JSON"):
        profile()
    assert (tmp_path / "layers.json").read_bytes() == before[:50]


@pytest.mark.parametrize("how", [{"most_rows": 0}, {"rounds": 0}, {"target": 0.0}, {"target": float("nan")}])
def test_impossible_requests_are_refused(how: Any, profile: Profile) -> None:
    with pytest.raises(EngineError, match="layer table needs"):
        profile(**how)


def test_a_network_without_choices_is_refused(profile: Profile) -> None:
    fixed = tuple(dataclasses.replace(layer, groups=(1,)) for layer in SUPERNET.layers)
    with pytest.raises(BundleError, match="nothing to measure"):
        profile(supernet=dataclasses.replace(SUPERNET, layers=fixed))


def test_a_file_that_cannot_be_written_is_an_error(profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot write"):
        profile(path=tmp_path / "file" / "layers.json")


def test_the_real_engine_is_measured_the_same_way(tmp_path: Path) -> None:
    supernet = make_supernet()
    path = tmp_path / "layers.json"
    table = profile_layers(
        supernet, OrtBackend(), emitted=lambda groups: {}, device=DEVICE, path=path, rounds=2, most_rows=4
    )
    assert table.full_ms > 0
    assert json.loads(path.read_bytes())["finished"] is True
