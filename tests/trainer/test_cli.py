import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.trainer.few_digits import FEW
from wenet_trainer import __version__
from wenet_trainer.cli import app, main


def test_the_three_commands_lead_from_nothing_to_a_bundle(tmp_path):
    run = ["--out", str(tmp_path / "run")]
    runner = CliRunner()
    train = ["train", *run, "--data", FEW, "--model", "tiny", "--epochs", "1", "--batch", "32"]
    for arguments in (
        train,
        ["explore", *run, "--keep", "3", "--search-images", "32"],
        ["export", *run, "--bundle", str(tmp_path / "bundle")],
    ):
        result = runner.invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "bundle" / "manifest.json").is_file()
    assert (tmp_path / "run" / "frontier.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explore", "--out", "nowhere"], "no checkpoint at nowhere"),
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
