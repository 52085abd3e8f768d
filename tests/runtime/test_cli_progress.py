"""How far something is: what is left is foretold from finished steps; single lines in logs, a bar on a terminal."""

import io
import sys
from typing import Any, List, Optional, Tuple

import pytest
from rich.console import Console

from wenet_runtime.cli.progress import TOLD_EVERY_S, Bar, Lines, Pace, left, progress_shown


class Clock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def foretold(steps: List[Tuple[float, int]], total: int) -> Optional[float]:
    """What is left after steps that each begin so many seconds after the one before."""
    clock = Clock()
    pace = Pace(clock)
    for after_s, done in steps:
        clock.now_s += after_s
        pace.tell(f"building m{done}", done, total)
    return pace.left_s


def test_nothing_is_foretold_before_a_step_is_finished() -> None:
    assert foretold([(0, 0)], 5) is None


def test_what_is_left_follows_from_the_steps_that_are_finished() -> None:
    assert foretold([(0, 0), (60, 1), (40, 2)], 5) == pytest.approx(150)


def test_steps_that_found_their_work_done_foretell_nothing() -> None:
    assert foretold([(0, 0), (0.01, 1), (0.01, 2), (100, 3)], 5) == pytest.approx(200)
    assert foretold([(0, 0), (100, 1), (0.01, 2)], 5) == pytest.approx(300)


def test_several_steps_at_once_count_as_so_many() -> None:
    assert foretold([(0, 0), (30, 3)], 5) == pytest.approx(20)


def test_what_is_left_shrinks_during_a_step_but_not_below_the_steps_after_it() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.tell("building m0", 0, 3)
    clock.now_s += 60
    pace.tell("building m1", 1, 3)
    clock.now_s += 20
    assert pace.left_s == pytest.approx(100)
    clock.now_s += 500
    assert pace.left_s == pytest.approx(60)


@pytest.mark.parametrize("second", [("loading m0", 0, 2), ("building m0", 0, 3), ("building m0", 0, 2)])
def test_another_thing_is_foretold_from_its_own_steps(second: Tuple[str, int, int]) -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.tell("building m0", 0, 2)
    clock.now_s += 60
    assert not pace.tell("building m1", 1, 2)
    assert pace.tell(*second)
    assert pace.left_s is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, ""),
        (0.4, ""),
        (45.2, "45 s left"),
        (200.0, "3 min 20 s left"),
        (119.7, "2 min 0 s left"),
        (7500.0, "2 h 5 min left"),
    ],
)
def test_time_is_told_to_what_matters(seconds: Optional[float], text: str) -> None:
    assert left(seconds) == text


def test_a_log_gets_single_lines_with_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(clock)
    for done in range(4):
        lines(f"building m{done}", done, 4)
        clock.now_s += 100
    lines("building", 4, 4)
    assert capsys.readouterr().err.splitlines() == [
        "building m0 0/4",
        "building m1 1/4, 5 min 0 s left",
        "building m2 2/4, 3 min 20 s left",
        "building m3 3/4, 1 min 40 s left",
        "building 4/4",
    ]


def test_quick_steps_are_not_told_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(clock)
    for done in range(1, 201):
        clock.now_s += 2.5 * TOLD_EVERY_S / 100
        lines("profiling", done, 200)
    told = capsys.readouterr().err.splitlines()
    assert (told[-1], len(told)) == ("profiling 200/200", 6)
    lines("loading m0", 0, 2)
    lines("loading m1", 1, 2)
    assert capsys.readouterr().err == "loading m0 0/2\n"


def drawn(*, ticking: bool = False, color: bool = False) -> Tuple[Bar, Clock, io.StringIO]:
    file, clock = io.StringIO(), Clock()
    console = Console(
        file=file, force_terminal=True, width=100, color_system="standard" if color else None, legacy_windows=False
    )
    return Bar(ticking=ticking, console=console, clock=clock), clock, file


def test_a_terminal_sees_the_mode_what_is_done_what_it_took_and_what_is_left() -> None:
    bar, clock, file = drawn()
    bar("building m2", 0, 5)
    clock.now_s += 50
    bar("building m1", 1, 5)
    last = file.getvalue().splitlines()[-1]
    bar.close()
    for part in ("building m1", "1/5", "0:00:50", "3 min 20 s left"):
        assert part in last


def test_each_thing_has_a_bar_and_what_went_before_is_finished() -> None:
    bar, _, file = drawn()
    bar("building m2", 0, 3)
    bar("loading m2", 0, 4)
    bar.close()
    text = file.getvalue()
    assert "3/3" in text
    assert "0/4" in text
    assert text.endswith("\n\x1b[?25h")  # below the bars, with the cursor shown again


def test_a_bar_is_not_drawn_for_every_step() -> None:
    bar, clock, file = drawn()
    bar("profiling", 1, 1000)
    before = len(file.getvalue())
    for done in range(2, 50):
        clock.now_s += 0.001
        bar("profiling", done, 1000)
    assert len(file.getvalue()) == before
    clock.now_s += 1.0
    bar("profiling", 50, 1000)
    assert "50/1000" in file.getvalue()[before:]
    bar.close()


@pytest.mark.parametrize("ticking", [True, False])
def test_only_a_ticking_bar_has_a_thread_that_draws(ticking: bool) -> None:
    bar, _, _ = drawn(ticking=ticking)
    assert bar._bars.live.auto_refresh == ticking
    bar.close()


@pytest.mark.parametrize(
    ("terminal", "name", "bars"), [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)]
)
def test_bars_are_for_terminals_that_can_show_them(
    terminal: bool, name: str, bars: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", name)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with progress_shown() as shown:
        assert isinstance(shown, Bar) == bars


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_shown() as shown:
        shown("building m2", 1, 3)
    text = capsys.readouterr().err
    assert "building m2" in text
    assert "\x1b[3" not in text  # a colour; moving the cursor is none
