"""A table is checked against whole networks that it has never seen; a wrong one fails."""

import dataclasses
from pathlib import Path
from typing import Any, List

import pytest

from tests.runtime.boards import Board, true_ms
from tests.supernets import bottlenecks, make_supernet, uniform
from wenet_runtime.conditions import Conditions
from wenet_runtime.device import this_device
from wenet_runtime.errors import BundleError, EngineError
from wenet_runtime.layer_check import Checked, check_layers, compare, error_summary
from wenet_runtime.layer_profiler import profile_layers
from wenet_runtime.layer_table import LayerTable

SUPERNET = bottlenecks(32, 48)
DEVICE = this_device("board", "1", 1)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    return Board(SUPERNET, noise=0.01).install(monkeypatch)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LayerTable:
    """Measured once on a board of the same kind."""
    path: Path = tmp_path_factory.mktemp("table") / "layers.json"
    with pytest.MonkeyPatch.context() as patch:
        board = Board(SUPERNET, noise=0.01).install(patch)
        return profile_layers(
            SUPERNET,
            board,
            emitted=lambda groups: {},
            device=DEVICE,
            path=path,
            rounds=5,
            most_rows=60,
            target=1e-9,
            conditions=Conditions,
        )


def checked(board: Board, table: LayerTable, **how: Any) -> List[Checked]:
    return check_layers(table, SUPERNET, board, emitted=lambda groups: {}, rounds=5, **how)


def test_a_check_measures_configurations_that_are_not_in_the_table(board: Board, table: LayerTable) -> None:
    told = []
    found = checked(board, table, progress=lambda done, total: told.append((done, total)))
    board.close()
    assert len(found) == 20
    assert told[-1] == (20, 20)
    known = [row.groups for row in table.rows]
    assert not any(one.groups in known for one in found)
    for one in found:
        assert one.measured_ms == pytest.approx(true_ms(SUPERNET, one.groups), rel=0.05)
        assert one.predicted_ms == table.latency_ms(one.groups)
        assert one.error == pytest.approx(one.predicted_ms / one.measured_ms - 1)
    assert error_summary(found).median < 0.03
    assert [one.groups for one in checked(board, table)] == [one.groups for one in found]


def test_a_check_leaves_out_what_the_machine_drifted_since(board: Board, table: LayerTable) -> None:
    board.slowdown = 2.0
    found = checked(board, table)
    assert error_summary(found).median < 0.03
    assert all(one.full_ms == pytest.approx(2 * table.full_ms, rel=0.05) for one in found)


def test_a_wrong_table_fails_its_check(board: Board, table: LayerTable) -> None:
    terms = {name: dict.fromkeys(levels, 0.0) for name, levels in table.latency.terms.items()}
    wrong = dataclasses.replace(table, latency=dataclasses.replace(table.latency, terms=terms))
    assert error_summary(checked(board, wrong)).median > 0.2


def test_given_configurations_are_compared(board: Board, table: LayerTable) -> None:
    chosen = [uniform(SUPERNET, 4), uniform(SUPERNET, 1)]
    four, full = compare(table, SUPERNET, board, chosen, emitted=lambda groups: {}, rounds=5)
    assert abs(four.error) < 0.05
    assert full.measured_ms == pytest.approx(table.full_ms, rel=0.03)


def test_a_check_refuses_a_table_of_another_network(board: Board, table: LayerTable) -> None:
    with pytest.raises(BundleError, match="another network"):
        check_layers(table, make_supernet(), board, emitted=lambda groups: {})


def test_a_check_refuses_an_unfinished_table(board: Board, table: LayerTable) -> None:
    with pytest.raises(EngineError, match="unfinished"):
        checked(board, dataclasses.replace(table, finished=False))
