"""`wenet-runtime profile`: what it prints and where, what it refuses before anything is measured, the layer table."""

import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from wenet_runtime import layer_profiler
from wenet_runtime.bundle import Bundle
from wenet_runtime.conditions import Conditions
from wenet_runtime.layer_check import Checked


@pytest.fixture
def profiled(command: Any, bundle_path: Path, tmp_path: Path) -> Any:
    """Runs the verb on the shared bundle, shortly."""
    words = ["profile", "--bundle", bundle_path, "--cache-dir", tmp_path / "cache", "--profile-rounds", 10]
    return lambda *more: command(*words, *more)


@pytest.fixture
def two_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle mode is measured to be as slow as the most accurate."""

    def sample(engines: Any, inputs: Any, *, rounds: int, **more: Any) -> Any:
        return {name: np.full(rounds, {"m2": 9.0, "m1": 9.0, "m0": 2.0}[name]) for name in engines}

    monkeypatch.setattr("wenet_runtime.service.costs.sample", sample)


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> List[int]:
    """Layer tables are of four configurations; says how many were measured in each call that ended."""
    told: List[int] = []
    original = layer_profiler.profile_layers

    def short(*parts: Any, **how: Any) -> Any:
        done: List[int] = []

        def counted(row: int, total: int) -> None:
            done.append(row)
            how["progress"](row, total)

        # A crowded machine looks like one whose clocks changed: nobody waits until it is as it was.
        shortly = {"most_rows": 4, "rounds": 2, "pause": lambda seconds: None}
        found = original(*parts, **{**how, **shortly, "progress": counted})
        told.append(len(done))
        return found

    monkeypatch.setattr(layer_profiler, "profile_layers", short)
    return told


def test_it_says_what_was_measured_on_what_and_when(profiled: Any, bundle: Bundle) -> None:
    found = profiled("--engine", "sim", "--meter", "sim", "--batch-sizes", "4,1,4")
    assert found.exit_code == 0
    members: Dict[str, Any] = json.loads(found.stdout)
    assert (members["bundle_sha256"], members["model"]) == (bundle.sha256, "tiny")
    assert members["engine"] == {"name": "sim", "version": "1"}
    assert members["device"]["processor"]
    assert (members["meter"], members["selected"]) == ("sim", None)
    assert members["measured_at"].endswith("+00:00")
    assert set(members["conditions"]) == {"start", "end"}
    assert [row["id"] for row in members["modes"]] == ["m2", "m1", "m0"]
    assert all(list(row["profile"]["batch_ms"]) == ["1", "4"] for row in members["modes"])
    assert all(row["profile"]["energy_source"] == "sim" for row in members["modes"])


def test_the_file_holds_what_is_printed(profiled: Any, tmp_path: Path) -> None:
    found = profiled("--engine", "sim", "--out", tmp_path / "device.json")
    assert (tmp_path / "device.json").read_text() == found.stdout
    assert json.loads(found.stdout)["modes"]


def test_a_choice_is_told_with_its_reasons_and_kept(profiled: Any, two_are_worth_it: None) -> None:
    found = profiled("--engine", "sim", "--select", 3)
    assert "left out: m1, not measurably faster than m2, which is more accurate" in found.stderr
    assert "offered from the next start on: m2, m0 (all again: --select 0)" in found.stderr
    selected = json.loads(found.stdout)["selected"]
    assert (selected["wanted"], selected["modes"], list(selected["left"])) == (3, ["m2", "m0"], ["m1"])
    again = profiled("--engine", "sim")
    assert json.loads(again.stdout)["selected"] == selected
    assert "offered are m2, m0, as chosen before" in again.stderr
    freed = profiled("--engine", "sim", "--select", 0)
    assert json.loads(freed.stdout)["selected"] is None
    assert "offered" not in freed.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--select", -1], "--select is -1: give 0 to offer all modes, or at least 2"),
        (["--select", 1], "--select is 1: give 0"),
        (["--select", "few"], "--select"),
        (["--batch-sizes", "1,x"], "--batch-sizes is '1,x': give numbers of rows above 0, such as 1,4,16"),
        (["--batch-sizes", ""], "--batch-sizes is ''"),
        (["--batch-sizes", "0,4"], "--batch-sizes is '0,4'"),
        (["--batch-sizes", "1.5"], "--batch-sizes is '1.5'"),
        (["--batch-sizes", "1,9"], "--batch-sizes asks for 9 rows, but this bundle takes at most 8"),
        (["--table", "layers.json"], "--table belongs to --layers"),
        (["--out", "nowhere/device.json"], "--out is 'nowhere/device.json', but there is no directory"),
        (["--out", "."], "--out is '.', which is no file"),
        (["--out", ""], "--out is '', which is no file"),
        (["--layers", "--table", "nowhere/layers.json"], "--table is 'nowhere/layers.json', but there is no directory"),
        (["--layers", "--engine", "sim"], "--engine sim computes nothing"),
        (["--check", "--threads", 0], "--threads 0 gives every mode threads of its own"),
    ],
)
def test_what_cannot_be_done_exits_2_before_anything_is_measured(
    profiled: Any, tmp_path: Path, words: List[Any], said: str
) -> None:
    found = profiled(*words)
    assert (found.exit_code, found.stdout) == (2, "")
    assert said in found.stderr
    assert "Traceback" not in found.stderr
    assert not list(tmp_path.glob("cache/*/*/*.json"))


def test_the_layer_table_is_measured_once_and_then_checked(profiled: Any, few_rows: List[int], tmp_path: Path) -> None:
    measured = profiled("--layers", "--no-tune")
    assert measured.exit_code == 0, measured.stderr
    described = json.loads(measured.stdout)["layers"]
    path = next(tmp_path.glob("cache/*/*/layers.json"))
    assert (described["table"], described["rows"], few_rows) == (str(path), 4, [4])
    assert f"layer table: {path}, 4 configurations, each predicted from the others" in measured.stderr
    again = profiled("--layers", "--check", "--no-tune")
    assert few_rows == [4, 0]
    assert f"to measure it again, remove {path}" in again.stderr
    checked = json.loads(again.stdout)["check"]
    assert len(checked["modes"]) == checked["error"]["rows"] == 20
    assert all(row["predicted_ms"] > 0 and row["measured_ms"] > 0 for row in checked["modes"])
    assert "mode 20: predicted " in again.stderr
    assert "20 random modes: error " in again.stderr


def test_clocks_and_temperatures_are_told_where_they_are_known(
    profiled: Any, few_rows: List[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = iter([Conditions({"cpu0": 1479.0}, {"CPU-therm": 41.5}), *[Conditions({"cpu0": 1020.0})] * 9])
    original = layer_profiler.profile_layers
    monkeypatch.setattr(
        layer_profiler, "profile_layers", lambda *parts, **how: original(*parts, **how, conditions=lambda: next(state))
    )
    found = profiled("--layers", "--no-tune")
    assert "while it was measured: 1479 MHz at the start, 1020 MHz at the end\n" in found.stderr


def test_a_table_lies_where_it_is_wanted(profiled: Any, few_rows: List[int], tmp_path: Path) -> None:
    found = profiled("--layers", "--no-tune", "--table", tmp_path / "nano.json")
    assert (found.exit_code, json.loads(found.stdout)["layers"]["table"]) == (0, str(tmp_path / "nano.json"))
    assert not list(tmp_path.glob("cache/*/*/layers.json"))


def test_a_table_that_is_not_there_cannot_be_checked(profiled: Any, tmp_path: Path) -> None:
    for words in ([], ["--table", tmp_path / "nano.json"]):
        found = profiled("--check", "--no-tune", *words)
        assert (found.exit_code, found.stdout) == (1, "")
        assert "measure one with `wenet-runtime profile --layers`" in found.stderr
        assert "profiling" not in found.stderr


def test_a_table_of_another_device_or_network_cannot_be_checked(
    profiled: Any, few_rows: List[int], tmp_path: Path
) -> None:
    table = tmp_path / "nano.json"
    profiled("--layers", "--no-tune", "--table", table)
    members = json.loads(table.read_text())
    members["device"]["processor"] = "a board"
    (tmp_path / "other.json").write_text(json.dumps(members))
    found = profiled("--check", "--no-tune", "--table", tmp_path / "other.json")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "processor" in found.stderr
    assert "a board" in found.stderr
    members["supernet_id"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(members))
    found = profiled("--check", "--no-tune", "--table", tmp_path / "other.json")
    assert (found.exit_code, found.stdout) == (3, "")
    assert "another network" in found.stderr
    table.write_text("{")
    for words in (["--check"], ["--layers"]):
        for path in (table, tmp_path / "other.json"):
            found = profiled(*words, "--no-tune", "--table", path)
            assert found.exit_code == (1 if path == table else 3)
            assert "profiling" not in found.stderr  # whole modes were not measured for nothing
    assert table.read_text() == "{"


def test_a_table_of_another_plan_is_not_checked_but_measured_anew(
    profiled: Any, few_rows: List[int], tmp_path: Path
) -> None:
    words = ["--no-tune", "--table", tmp_path / "nano.json"]
    profiled("--layers", *words)
    members = json.loads((tmp_path / "nano.json").read_text())
    assert members["plan_id"] == "rule"
    (tmp_path / "nano.json").write_text(json.dumps({**members, "plan_id": "tuned"}))
    found = profiled("--check", *words)
    assert (found.exit_code, found.stdout) == (1, "")
    assert "emitted as 'tuned', here they are 'rule'" in found.stderr
    assert "profiling" not in found.stderr
    assert json.loads(profiled("--layers", *words).stdout)["layers"]["plan"] == "rule"
    assert few_rows == [4, 4]


@pytest.mark.parametrize("named", [True, False])
def test_what_is_printed_does_not_go_into_the_table_s_file(named: bool, profiled: Any, tmp_path: Path) -> None:
    if named:
        path = tmp_path / "nano.json"
        words = ["--table", path]
    else:
        profiled("--no-tune")
        path, words = next(tmp_path.glob("cache/*/*/profile.json")).with_name("layers.json"), []
    (tmp_path / "link").symlink_to(path.parent)
    for out in (path, tmp_path / "link" / path.name):
        found = profiled("--layers", "--no-tune", "--out", out, *words)
        assert (found.exit_code, found.stdout) == (2, "")
        assert "where the layer table lies: name another file" in found.stderr
        assert "profiling" not in found.stderr
    assert not path.exists()


def test_what_was_measured_is_printed_also_when_its_file_cannot_be_written(
    profiled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*parts: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wenet_runtime.cli.profile.write_atomic", full)
    found = profiled("--engine", "sim", "--out", tmp_path / "device.json")
    assert found.exit_code == 2
    assert json.loads(found.stdout)["modes"]
    assert "No space left on device" in found.stderr


@pytest.mark.parametrize("moved", [1.0, 3.0])
def test_a_check_says_whether_the_device_is_as_fast_as_it_was(
    moved: float, profiled: Any, few_rows: List[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "nano.json"
    profiled("--layers", "--no-tune", "--table", table)
    full_ms = json.loads(table.read_text())["full_ms"]
    checked = [Checked({"a": 1}, full_ms, full_ms, full_ms * moved)] * 3
    monkeypatch.setattr("wenet_runtime.layer_check.check_layers", lambda *parts, **how: checked)
    found = profiled("--check", "--no-tune", "--table", table)
    assert json.loads(found.stdout)["check"]["full_ms"] == pytest.approx(full_ms * moved)
    assert f"ms in the table ({moved - 1:+.1%})" in found.stderr
    assert ("warning: times here are not those of the table" in found.stderr) == (moved > 1)


def test_an_interrupted_table_goes_on_where_it_ended(
    profiled: Any, few_rows: List[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(shown: Any, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("wenet_runtime.cli.layers._measuring", interrupted)
        found = profiled("--layers", "--no-tune")
        assert found.exit_code != 0
        assert found.stdout == ""
    assert profiled("--layers", "--no-tune").exit_code == 0
    assert few_rows == [2]
