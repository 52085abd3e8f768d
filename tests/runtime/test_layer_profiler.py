"""A layer table predicts what it was never shown, stops when it does, and never measures a row again."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Callable, List

import numpy as np
import pytest

from tests.runtime.boards import Board, WattMeter, true_ms
from tests.supernets import bottlenecks, make_supernet, uniform
from wenet_runtime.conditions import Conditions
from wenet_runtime.device import this_device
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import BundleError, EngineError
from wenet_runtime.layer_profiler import LEAST_ROWS, profile_layers
from wenet_runtime.layer_table import LayerTable, read_table, write_table
from wenet_runtime.table_bench import DRIFT, TIMING, WAITS

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


def test_a_table_that_sufficed_when_it_was_interrupted_ends_there(
    board: Board, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wenet_runtime.layer_profiler.LEAST_ROWS", 20)
    board.noise = 0.0
    whole = profile(most_rows=150, target=0.2)
    assert len(whole.rows) == 20

    def kill(done: int, total: int) -> None:
        if done == len(whole.rows):
            raise KeyboardInterrupt

    path = {"path": tmp_path / "resumed.json"}
    with pytest.raises(KeyboardInterrupt):
        profile(most_rows=150, target=0.2, progress=kill, **path)
    board.loads.clear()
    table = profile(most_rows=150, target=0.2, **path)
    assert (table.finished, table.rows, table.latency) == (True, whole.rows, whole.latency)
    assert board.loads == []


def test_a_table_goes_on_with_its_own_seed(board: Board, profile: Profile, tmp_path: Path) -> None:
    board.noise = 0.0
    profile(most_rows=5, seed=3)
    table = profile(most_rows=12, seed=4)
    straight = profile(most_rows=12, seed=3, path=tmp_path / "straight.json")
    assert table.seed == 3
    assert [row.groups for row in table.rows] == [row.groups for row in straight.rows]


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


@pytest.mark.parametrize("before", [None, WattMeter(2.0, "rail:other")])
def test_a_table_without_this_meter_s_energy_is_measured_anew(before: Any, board: Board, profile: Profile) -> None:
    first = profile(most_rows=3, target=1e-9, meter=before)
    board.loads.clear()
    table = profile(most_rows=3, target=1e-9, meter=WattMeter(5.0))
    assert configurations_loaded(board) == 3
    assert (table.energy_source, first.energy_source) == ("rail:test", "none" if before is None else "rail:other")
    groups = uniform(SUPERNET, 4)
    assert table.energy_mj(groups) == pytest.approx(5.0 * true_ms(SUPERNET, groups), rel=0.3)
    board.loads.clear()
    for meter in (WattMeter(5.0), None):
        assert profile(most_rows=3, target=1e-9, meter=meter) == table  # it is kept, and its energy with it
    assert board.loads == []


def test_an_unfinished_table_of_another_meter_gives_no_rows(board: Board, profile: Profile) -> None:
    def kill(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    for meter in (None, WattMeter(2.0, "rail:other")):
        with pytest.raises(KeyboardInterrupt):
            profile(most_rows=8, progress=kill, meter=meter)
    board.loads.clear()
    table = profile(most_rows=8, meter=WattMeter(5.0))
    assert (configurations_loaded(board), table.energy_source) == (8, "rail:test")
    assert all(row.energy_mj == pytest.approx(5.0 * row.latency_ms, rel=0.1) for row in table.rows)


def test_energy_that_is_known_is_kept_while_rows_are_added_without_a_meter(board: Board, profile: Profile) -> None:
    profile(most_rows=4, meter=WattMeter(5.0))
    table = profile(most_rows=6)
    assert (table.energy_source, table.energy is None, len(table.rows)) == ("rail:test", False, 6)


def test_a_meter_that_still_answers_nothing_is_no_reason_to_measure_again(board: Board, profile: Profile) -> None:
    table = profile(most_rows=3)
    board.loads.clear()
    assert profile(most_rows=3, meter=WattMeter(None)) == table
    assert configurations_loaded(board) == 0


@pytest.mark.parametrize("change", [{"plan_id": "rule"}, {"timing": "cold"}])
def test_a_table_of_another_plan_or_way_of_timing_is_measured_anew(
    change: Any, board: Board, profile: Profile, tmp_path: Path
) -> None:
    first = profile(most_rows=3)
    assert (first.plan_id, first.timing) == ("tuned", TIMING)
    write_table(tmp_path / "layers.json", dataclasses.replace(first, **change))
    board.loads.clear()
    table = profile(most_rows=3)
    assert (configurations_loaded(board), table.plan_id, table.timing) == (3, "tuned", TIMING)
    assert profile(most_rows=3, plan_id="rule").plan_id == "rule"
    assert configurations_loaded(board) == 6


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


def test_a_drift_that_came_back_is_waited_for_briefly_and_told(board: Board, profile: Profile) -> None:
    pauses = []

    def slow_down(done: int, total: int) -> None:
        board.slowdown = 0.5 if done == 10 else 1.0  # as fast as that after one row only

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        board.slowdown = 1.0 if len(pauses) == 2 else board.slowdown

    table = profile(most_rows=12, progress=slow_down, pause=wait, target=1e-9)
    assert (len(pauses), table.warning) == (2, None)  # faster is drift, too


def test_a_table_whose_rows_drifted_says_so_at_the_end(board: Board, profile: Profile, monkeypatch: Any) -> None:
    monkeypatch.setattr("wenet_runtime.layer_profiler.TableBench.settled", lambda *given: True)  # between two rows

    def slow_down(done: int, total: int) -> None:
        board.slowdown = 1.5 if done == 10 else 1.0

    table = profile(most_rows=12, progress=slow_down, target=1e-9)
    assert table.drift > DRIFT
    assert table.warning is not None
    assert "moved by" in table.warning


def test_disturbances_of_single_runs_are_no_drift(board: Board, profile: Profile) -> None:
    board.noise = 0.6  # medians scatter by more than the drift that is waited for, quiet times less
    pauses: List[float] = []
    table = profile(most_rows=15, rounds=15, pause=pauses.append, target=1e-9)
    assert len(pauses) <= WAITS
    medians = [row.full_ms for row in table.rows]
    assert max(medians) / min(medians) - 1 > table.drift


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
