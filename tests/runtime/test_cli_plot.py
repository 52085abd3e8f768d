"""`wenet-runtime plot`: which pictures it writes of what it was given, and how it ends."""

import builtins
import importlib.util
import json
from pathlib import Path
from typing import Any, List

import pytest

from tests.runtime.load_files import profile_members, write_log, write_report
from wenet_runtime.cli.plot import PICTURES

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="pictures need matplotlib, which `[plot]` brings"
)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_report(tmp_path / "r.json")
    write_log(tmp_path / "d.jsonl")
    (tmp_path / "p.json").write_text(json.dumps(profile_members()))
    return tmp_path


@needs_matplotlib
def test_everything_is_drawn_of_a_report_a_log_and_a_profile(command: Any, files: Path) -> None:
    found = command("plot", "--report", "r.json", "--decisions", "d.jsonl", "--profile", "p.json", "--out", "a/b")
    assert (found.exit_code, found.stderr) == (0, "")
    wanted = [f"a/b/{name}.{kind}" for name in PICTURES for kind in ("png", "svg", "csv")]
    assert found.stdout.splitlines() == wanted
    assert all((files / one).stat().st_size > 0 for one in wanted)


@needs_matplotlib
def test_what_cannot_be_drawn_is_told_and_the_rest_is_drawn(command: Any, files: Path) -> None:
    found = command("plot", "--decisions", "d.jsonl", "--out", "o", "--json")
    assert found.exit_code == 0
    told = json.loads(found.stdout)
    assert set(told["written"]) == {"latency", "budgets", "modes", "prediction"}
    assert set(told["left_out"]) == {"power", "frontier", "batches"}
    assert "no picture 'batches': no batches were measured: `wenet-runtime profile --batch-sizes" in found.stderr


@needs_matplotlib
def test_only_what_is_asked_for_is_drawn(command: Any, files: Path) -> None:
    found = command("plot", "--report", "r.json", "--only", "latency", "--only", "frontier", "--out", "o")
    assert {Path(one).stem for one in found.stdout.splitlines()} == {"latency", "frontier"}


@needs_matplotlib
def test_where_nothing_can_be_drawn_it_exits_1(command: Any, files: Path) -> None:
    (files / "p.json").write_text(json.dumps(profile_members(batches=False)))
    found = command("plot", "--profile", "p.json", "--only", "batches")
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr.endswith("nothing of what was given can be drawn\n")
    assert not (files / "plots").exists()


@needs_matplotlib
def test_a_directory_that_cannot_be_made_exits_2(command: Any, files: Path) -> None:
    found = command("plot", "--report", "r.json", "--out", "r.json/x")
    assert found.exit_code == 2
    assert "--out 'r.json/x' cannot be written" in found.stderr


def test_without_matplotlib_it_says_what_to_install(command: Any, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **how: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *more, **how)

    monkeypatch.setattr(builtins, "__import__", without)
    found = command("plot", "--report", "r.json")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "pictures need matplotlib, which is not installed: pip install 'wenet-runtime[plot]'" in found.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --report, --decisions or --profile"),
        (["--report", "nowhere.json"], "--report 'nowhere.json' cannot be read (No such file"),
        (["--decisions", "nowhere"], "--decisions 'nowhere' cannot be read (No such file"),
        (["--profile", "nowhere"], "--profile 'nowhere' cannot be read (No such file"),
        (["--report", "r.json", "--only", "pie"], "--only 'pie' is no picture: there are latency, budgets"),
        (["--report", "r.json", "--bundle", "b"], "--bundle belongs to --profile"),
        (["--report", "p.json"], "is no report of `wenet-runtime bench`"),
        (["--decisions", "p.json"], "holds no decision"),
    ],
)
def test_bad_usage_exits_2(command: Any, files: Path, words: List[str], said: str) -> None:
    found = command("plot", *words)
    assert (found.exit_code, found.stdout) == (2, "")
    assert said in found.stderr
