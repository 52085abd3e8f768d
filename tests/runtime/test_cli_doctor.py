"""`wenet-runtime doctor`: columns for people, one JSON object for programs, an exit code for scripts."""

import json
from pathlib import Path
from typing import Any, List

import pytest

from wenet_runtime import __version__
from wenet_runtime.cli.doctor import lines
from wenet_runtime.service.check import FAIL, OK, SKIPPED, WARN, Check

FINE = Check("board", OK, "a board", data={"model": "a board"})
SLOW = Check("power setting", WARN, "5W", "set another")
BROKEN = Check("cache", FAIL, "it is full", "make room")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> List[Check]:
    """What is found, whatever there is; notes the settings it was looked for with."""
    checks: List[Check] = []
    monkeypatch.setattr("wenet_runtime.service.doctor.examine", lambda settings: checks)
    return checks


def test_a_person_reads_columns_with_what_to_do_below_what_was_found() -> None:
    assert lines([FINE, SLOW, Check("L4T", SKIPPED, "no Jetson")]) == [
        "ok       board          a board",
        "warn     power setting  5W",
        "                        → set another",
        "skipped  L4T            no Jetson",
    ]
    assert lines([]) == []


@pytest.mark.parametrize(
    ("checks", "status", "code"), [([FINE], OK, 0), ([FINE, SLOW], WARN, 0), ([FINE, BROKEN, SLOW], FAIL, 1)]
)
def test_only_what_fails_exits_1(command: Any, found: List[Check], checks: List[Check], status: str, code: int) -> None:
    found.extend(checks)
    told = command("doctor", "--json")
    assert (told.exit_code, told.stderr) == (code, "")
    members = json.loads(told.stdout)
    assert (members["version"], members["status"]) == (__version__, status)
    assert [one["name"] for one in members["checks"]] == [one.name for one in checks]
    assert members["checks"][0] == {
        "name": "board",
        "status": "ok",
        "found": "a board",
        "remedy": "",
        "data": {"model": "a board"},
    }
    plain = command("doctor")
    assert (plain.exit_code, plain.stdout) == (code, "\n".join(lines(checks)) + "\n")


def test_it_needs_no_bundle_and_says_everything_about_this_machine(command: Any, tmp_path: Path) -> None:
    told = command("doctor", "--cache-dir", tmp_path / "cache", "--port", 0)
    assert told.exit_code == 0, told.stdout
    assert "ONNX Runtime" in told.stdout
    assert "no bundle is given" in told.stdout
    assert not (tmp_path / "cache").exists()


def test_it_takes_the_daemon_s_options(command: Any, tmp_path: Path, bundle_path: Path) -> None:
    told = command(
        *("doctor", "--json", "--cache-dir", tmp_path / "cache", "--port", 0, "--bundle", bundle_path),
        *("--engine", "abacus", "--host", "0.0.0.0"),
    )
    statuses = {one["name"]: one["status"] for one in json.loads(told.stdout)["checks"]}
    assert told.exit_code == 1
    assert (statuses["engine"], statuses["token file"], statuses["bundle"]) == ("fail", "fail", "ok")


def test_an_impossible_option_exits_2(command: Any) -> None:
    assert command("doctor", "--port", "70000").exit_code == 2
