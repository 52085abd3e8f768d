from pathlib import Path

import pytest

from benchmarks.load_bench import Daemon
from benchmarks.load_picture import Line, draw
from benchmarks.load_report import Report, report
from benchmarks.open_loop import Answer
from benchmarks.real_load import FULL, OURS, QUICK, STATIC, TURNS, Way, _figures, _line

GOOD = [Answer(0.1 * number, 0.1, 10, 200, "g1", "fits", 8, 9, True) for number in range(10)]
LATE = [Answer(0.1 * number, 0.1, 90, 200, "g1", "pinned", 8, 89, False) for number in range(10)]


def _report(answers: list[Answer]) -> Report:
    return report(answers, budget_ms=50, seconds=1, accuracies={"g1": 0.8})


def test_a_whole_run_sees_every_kind_of_stress_and_both_kinds_of_change_for_a_minute():
    assert FULL.seconds == 60
    shaded = [kind for *_, kind in _line("", [[], []], FULL, stressed=True).stressed]
    assert set(shaded) == set(TURNS.values())
    assert [first for first, _ in FULL.blocks] == [False, True]
    stressed_s = sum(to_s - from_s for from_s, to_s, _ in _line("", [[], []], FULL, stressed=True).stressed)
    assert stressed_s == FULL.seconds / 2
    assert QUICK.seconds <= 1


def test_blocks_lie_one_after_the_other_in_a_line():
    line = _line("x", [GOOD, LATE], FULL, stressed=True)
    assert [first_s for first_s, _ in line.answers] == [0.0, 30.0]
    assert [(from_s, to_s) for from_s, to_s, _ in line.stressed] == [(10, 20), (30, 40), (50, 60)]
    assert _line("x", [GOOD, LATE], FULL, stressed=False).stressed == []


@pytest.mark.parametrize(("ours", "static", "met"), [(GOOD, LATE, True), (LATE, GOOD, False)])
def test_goals_are_met_by_keeping_the_budget_where_the_static_mode_does_not(ours, static, met):
    ways = [Way(name, "g1", 10.0, daemon=None, headers={}) for name in (OURS, STATIC)]
    reports = {ways[0].label: _report(ours), ways[1].label: _report(static), "overload": _report(ours)}
    figures = _figures(reports, ways, [10.0, 10.0], 50.0 if met else 0.5, answered=met)
    judged = {name: figure.met for name, figure in figures.items() if figure.met is not None}
    assert len(judged) == 5
    assert set(judged.values()) == {met}


def test_a_daemon_that_does_not_start_is_reported_with_what_it_said(tmp_path: Path):
    with (tmp_path / "log").open("ab") as log, pytest.raises(RuntimeError, match="bundle"):
        Daemon(["--bundle", str(tmp_path / "none")], log)


def test_a_time_line_is_drawn_also_of_nothing(tmp_path: Path):
    refused = Answer(0.5, 0.1, 1, 503, problem="queue-full")
    lines = [Line("some", [(0.0, [*GOOD, refused])], [(0.2, 0.4, "cpu")]), Line("nothing", [], [])]
    draw(tmp_path / "line.png", lines, budget_ms=50, modes={"g1": 0.8, "g2": 0.7}, title="title")
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")
