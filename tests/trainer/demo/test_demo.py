"""The demo's own logic: goals that can be missed, a refused budget that is no crash, load that really loads."""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.trainer.few_digits import FEW
from wenet_trainer.checkpoint import FILE as CHECKPOINT
from wenet_trainer.demo.budgets import Outcome, Shown, post_all
from wenet_trainer.demo.contention import load
from wenet_trainer.demo.daemon import Answer, Daemon
from wenet_trainer.demo.goals import goals
from wenet_trainer.demo.main import _road
from wenet_trainer.demo.tables import _short
from wenet_trainer.errors import DemoError
from wenet_trainer.recipe import Recipe
from wenet_trainer.train import train


def outcome(accuracy: float, mode: str = "m1") -> Outcome:
    return Outcome("", None, {mode: 10}, 1.0, 1.0, None, accuracy)


def held(**changes: Any) -> dict[str, bool]:
    """Which goals hold for a run that meets them all but for the changes."""
    modes = [
        {"macs": macs, "latency_ms": {"p50": ms}}
        for macs, ms in [(100, 1.0), (80, 0.8), (60, 0.6), (40, 0.4), (changes.get("macs", 20), changes.get("ms", 0.2))]
    ]
    found = goals(
        modes[: changes.get("modes", 5)],
        full=outcome(changes.get("full", 0.94)),
        clean=outcome(changes.get("clean", 0.98)),
        fastest=outcome(changes.get("fastest", 0.88)),
        budgets=[outcome(0.9, mode) for mode in changes.get("favourites", ["m0", "m1"])],
    )
    return {goal.name: goal.met for goal in found}


def test_a_good_run_meets_every_goal() -> None:
    assert all(held().values())


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"full": 0.929}, "test accuracy of the full network"),
        ({"clean": 0.969}, "the same on clean digits"),
        ({"fastest": 0.9}, "full above the fastest mode"),
        ({"modes": 3, "macs": 40}, "modes on the frontier"),
        ({"macs": 36}, "MACs of the smallest, of full"),
        ({"ms": 1.0}, "time of the smallest, of full"),
        ({"favourites": ["m1", "m1"]}, "modes that budgets prefer"),
    ],
)
def test_a_missed_goal_is_called_missed(changes: dict[str, Any], missed: str) -> None:
    assert not held(**changes)[missed]


def test_a_budget_that_is_refused_throughout_is_an_outcome_like_any_other() -> None:
    class Refusing:
        def post(self, png: bytes, *, budget_ms: float | None = None, mode: str | None = None) -> Answer:
            return Answer(503, "", "", float("nan"), 1.0, "", None)

    found = post_all(Refusing(), [Shown(b"", "1")] * 3, "tight", budget_ms=0.1)  # type: ignore[arg-type]
    assert (found.modes, found.met_share, found.accuracy) == ({"refused": 3}, 0.0, 0.0)


def test_a_daemon_that_does_not_start_says_its_last_words(tmp_path: Any) -> None:
    with pytest.raises(DemoError, match="no bundle at"):
        Daemon(tmp_path / "none", [], tmp_path / "log")


def test_load_takes_the_core_and_leaves_it(tmp_path: Any) -> None:
    core = min(os.sched_getaffinity(0))
    with load(core, processes=1) as hogs:
        assert len(hogs) == 1
        end = time.monotonic() + 30
        while os.sched_getaffinity(hogs[0]) != {core}:  # starting up
            assert time.monotonic() < end, "the process never went to its core"
            time.sleep(0.02)
        started_s = _cpu_s(hogs[0])
        while _cpu_s(hogs[0]) < started_s + 0.05:
            assert time.monotonic() < end, "the process never worked"
            time.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        os.kill(hogs[0], 0)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_equal_neighbours_are_shown_once() -> None:
    assert _short([1, 1, 1, 4, 4, 16]) == "1×3 4×2 16×1"


def test_a_run_of_other_settings_in_the_demo_s_folder_is_made_anew(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def stop(*of: Any) -> None:
        raise Stop

    few = Recipe(data=FEW, model="tiny", epochs=2, batch=32)
    train(few, tmp_path / "run", stop_after=1, quiet=True)
    monkeypatch.setattr("wenet_trainer.demo.main.train", stop)
    with pytest.raises(Stop):
        _road(tmp_path, few, Console())
    assert (tmp_path / "run" / CHECKPOINT).exists()  # its own, unfinished: goes on
    with pytest.raises(Stop):
        _road(tmp_path, dataclasses.replace(few, seed=1), Console())
    assert not (tmp_path / "run").exists()
