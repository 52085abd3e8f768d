import hashlib
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.supernets import write_test_bundle
from tests.trainer.few_digits import FEW
from wenet_trainer import __version__
from wenet_trainer.checkpoint import FILE as CHECKPOINT
from wenet_trainer.checkpoint import Checkpoint, write_checkpoint
from wenet_trainer.cli import app, main
from wenet_trainer.explore.exploring import Exploring
from wenet_trainer.explore.frontier import find_frontier
from wenet_trainer.explore.result import FILE as FRONTIER
from wenet_trainer.recipe import Recipe


def test_the_three_commands_lead_from_nothing_to_a_bundle(tmp_path):
    run = ["--out", str(tmp_path / "run")]
    runner = CliRunner()
    train = ["train", *run, "--data", FEW, "--model", "tiny", "--epochs", "1", "--batch", "32"]
    for arguments in (
        train,
        ["explore", *run, "--modes", "3", "--search-images", "32", "--evaluations", "12", "--measured"],
        ["export", *run, "--bundle", str(tmp_path / "bundle")],
    ):
        result = runner.invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "bundle" / "manifest.json").is_file()
    assert all((tmp_path / "run" / f"frontier.{kind}").is_file() for kind in ("png", "svg", "csv"))


def test_a_bundle_to_measure_a_board_with_needs_no_exploration(tiny, tmp_path):
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    write_checkpoint(run / CHECKPOINT, Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), tiny.state_dict(), {}))
    arguments = ["export", "--out", str(run), "--bundle", str(bundle), "--uniform"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    modes = json.loads((bundle / "manifest.json").read_text())["modes"]
    assert [set(mode["groups"].values()) for mode in modes] == [{groups} for groups in (1, 2, 4, 8, 16)]


def test_limits_and_searches_that_cannot_be_are_refused_by_name(tiny, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    write_checkpoint(run / CHECKPOINT, Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), tiny.state_dict(), {}))
    for flags, message in (
        (["--modes", "1"], "--modes is 1"),
        (["--method", "luck"], "unknown search 'luck'"),
        (["--table", str(tmp_path / "nano.json")], "nano.json"),
        (["--beside", str(tmp_path / "slim")], "slim"),
        (["--min-accuracy", "1"], "below --min-accuracy 1.0000"),
    ):
        monkeypatch.setattr(sys, "argv", ["wenet-trainer", "explore", "--out", str(run), *flags])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    assert not (run / FRONTIER).exists()


def test_export_writes_the_bundle_and_then_the_standalone_directory(tiny, tmp_path):
    run, bundle, out = tmp_path / "run", tmp_path / "bundle", tmp_path / "onnx"
    checkpoint = Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), tiny.state_dict(), {})
    write_checkpoint(run / CHECKPOINT, checkpoint)
    few = Exploring(modes=2, search_images=32, evaluations=6, rounds=2, measured=True, precisions=False)
    found = find_frontier(checkpoint, run / FRONTIER, few, quiet=True)
    write_test_bundle(bundle)  # an older one: it is exported anew, not taken as it is
    arguments = ["export", "--out", str(run), "--bundle", str(bundle), "--standalone", str(out)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"{len(found.modes)} modes as ONNX files" in result.output
    assert "taken as it is" not in result.output
    index = json.loads((out / "modes.json").read_text())
    assert index["bundle_sha256"] == hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert {entry["id"] for entry in index["modes"]} == {mode.id for mode in found.modes}
    assert all((out / entry["file"]).is_file() for entry in index["modes"])


def test_a_bundle_without_a_run_is_taken_as_it_is_and_only_for_the_standalone_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sha256 = write_test_bundle(tmp_path / "bundle")
    result = CliRunner().invoke(app, ["export", "--standalone", "onnx"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "no checkpoint in run: the bundle in bundle is taken as it is" in result.output
    assert json.loads((tmp_path / "onnx/modes.json").read_text())["bundle_sha256"] == sha256
    assert (tmp_path / "onnx/m0.onnx").is_file()
    monkeypatch.setattr(sys, "argv", ["wenet-trainer", "export"])
    with pytest.raises(SystemExit):
        main()
    assert "no checkpoint at run" in capsys.readouterr().err


def test_a_standalone_directory_that_must_not_be_replaced_is_refused_before_the_run_is_read(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "notes.txt").write_text("mine")
    arguments = ["export", "--out", str(tmp_path / "nowhere"), "--standalone", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["wenet-trainer", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    assert "choose another --standalone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explore", "--out", "nowhere"], "no checkpoint at nowhere"),
        (["export", "--standalone", "onnx"], "no checkpoint at run"),
        (["train", "--samples", "1"], "samples is 1, but must be at least 2"),
        (["train", "--data", "cats"], "unknown data source 'cats'"),
    ],
)
def test_mistakes_end_with_exit_code_two_and_a_message(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wenet-trainer", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("wenet-trainer: ")
    assert message in error
    assert "Traceback" not in error


def test_the_version_is_shown_without_importing_torch():
    code = """
import sys
sys.argv[1:] = ["--version"]
from wenet_trainer.cli import main
try:
    main()
except SystemExit:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"wenet-trainer {__version__}"
