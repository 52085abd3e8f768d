"""A row is a ratio to the full network beside it: disturbances and drift leave it, and doubt repeats it."""

from typing import List

import pytest

from tests.runtime.boards import Board, BoardEngine, WattMeter, true_ms
from tests.supernets import bottlenecks, uniform
from wenet_runtime.table_bench import DRIFT, ROUNDS, TIMING, WAITS, TableBench

SUPERNET = bottlenecks(32, 32)
EIGHT = uniform(SUPERNET, 8)
RATIO = true_ms(SUPERNET, EIGHT) / true_ms(SUPERNET, uniform(SUPERNET, 1))


def bench(board: Board, **how: object) -> TableBench:
    meter = how.pop("meter", None)
    assert not how
    return TableBench(SUPERNET, board, lambda groups: {}, rounds=ROUNDS, meter=meter, seed=0)  # type: ignore[arg-type]


def test_a_row_is_the_ratio_to_the_full_network(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(SUPERNET).install(monkeypatch)
    one = bench(board)
    row = one.row(EIGHT, 0)
    assert row.ratio == pytest.approx(RATIO, abs=1e-6)
    assert row.latency_ms == pytest.approx(true_ms(SUPERNET, EIGHT))
    assert (row.runs, row.energy_mj) == (ROUNDS, None)
    one.close()
    board.close()


def test_a_slower_machine_gives_the_same_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(SUPERNET).install(monkeypatch)
    one = bench(board)
    board.slowdown = 3.0
    row = one.row(EIGHT, 0)
    assert row.ratio == pytest.approx(RATIO, abs=1e-6)
    assert row.full_ms == pytest.approx(3 * true_ms(SUPERNET, uniform(SUPERNET, 1)))


def test_runs_are_repeated_while_their_halves_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(SUPERNET, noise=0.3).install(monkeypatch)
    row = bench(board).row(EIGHT, 0)
    assert row.runs > ROUNDS
    assert row.ratio == pytest.approx(RATIO, rel=0.1)


def test_one_configuration_is_open_beside_the_full_network_which_is_opened_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = Board(SUPERNET).install(monkeypatch)
    one = bench(board)
    assert board.loads == []
    for number, level in enumerate((2, 4, 8)):
        one.row(uniform(SUPERNET, level), number)
    assert board.most == 2
    assert board.loads.count("the full network") == 1
    one.close()
    board.close()


def test_emitted_groups_are_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(SUPERNET).install(monkeypatch)
    dense = TableBench(
        SUPERNET, board, lambda groups: dict.fromkeys(groups, 1), rounds=3, meter=None, seed=0
    )  # fmt: skip
    assert dense.row(EIGHT, 0).ratio == pytest.approx(1.0)


def test_energy_is_that_of_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(SUPERNET).install(monkeypatch)
    row = bench(board, meter=WattMeter(5.0)).row(EIGHT, 0)
    assert row.energy_mj == pytest.approx(5.0 * true_ms(SUPERNET, EIGHT), rel=1e-3)
    assert row.full_energy_mj == pytest.approx(5.0 * true_ms(SUPERNET, uniform(SUPERNET, 1)), rel=1e-3)
    assert bench(board, meter=WattMeter(None)).row(EIGHT, 0).energy_mj is None


def test_a_hot_machine_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(SUPERNET).install(monkeypatch)
    one = bench(board)
    first_ms = one.row(EIGHT, 0).full_quiet_ms
    pauses: List[float] = []

    def cool(seconds: float) -> None:
        pauses.append(seconds)
        board.slowdown -= 0.2

    board.slowdown = 1.5
    assert one.settled(first_ms, cool)
    assert len(pauses) == 2
    board.slowdown = 1 + DRIFT / 2
    assert one.settled(first_ms, cool)
    assert len(pauses) == 2


def test_a_machine_that_stays_slow_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(SUPERNET).install(monkeypatch)
    one = bench(board)
    first_ms = one.row(EIGHT, 0).full_quiet_ms
    pauses: List[float] = []
    for slowdown in (2.0, 0.5):
        board.slowdown = slowdown
        assert not one.settled(first_ms, pauses.append)
    assert len(pauses) == WAITS  # in all


def test_every_run_that_counts_follows_one_of_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: List[float] = []
    monkeypatch.setattr(BoardEngine, "infer", lambda self, inputs: ran.append(self._took_ms) or self._board.spend(1.0))
    board = Board(SUPERNET).install(monkeypatch)
    bench(board).row(EIGHT, 0)
    counted = ran[4:]  # after warming up
    assert counted[::2] == counted[1::2]
    assert len(counted) == 4 * ROUNDS
    assert TIMING == "primed 1"
