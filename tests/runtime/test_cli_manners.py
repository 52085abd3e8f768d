"""How the command line behaves as a whole: suggestions, completion, colours, exit codes, what it loads."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
import typer.main

from wenet_runtime import __version__
from wenet_runtime.bundle import Bundle
from wenet_runtime.cli.commands import app

START_S = 120
START = [sys.executable, "-W", "error", "-c", "from wenet_runtime.cli import main; main()"]
VERBS = (
    "serve", "build", "profile", "modes", "verify", "doctor", "settings", "infer", "bench", "plot", "explain",
)  # fmt: skip


def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command as a process of its own."""
    return subprocess.run(
        [*START, *words],
        capture_output=True,
        text=True,
        timeout=START_S,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["moeds"], "Did you mean 'modes'?"),
        (["sreve"], "Did you mean 'serve'?"),
        (["infre", "a.jpg"], "Did you mean 'infer'?"),
        (["--budgt-ms", "5"], "--budget-ms"),
        (["bench", "--rat", "5"], "--rate"),
        (["infer", "a.jpg", "--topk", "5"], "--top-k"),
        (["build", "--verifi"], "--verify"),
    ],
)
def test_a_misspelt_verb_or_option_exits_2_with_the_right_one(command: Any, words: List[str], said: str) -> None:
    found = command(*words)
    assert (found.exit_code, found.stdout) == (2, "")
    assert said in found.stderr


def test_every_verb_is_listed_and_has_help(command: Any) -> None:
    listed = typer.main.get_command(app)
    assert set(listed.commands) == set(VERBS)  # type: ignore[attr-defined]
    for verb in VERBS:
        found = command(verb, "--help")
        assert (found.exit_code, found.stderr) == (0, "")
        assert found.stdout.startswith("Usage:")


def test_completion_answers_with_the_verbs() -> None:
    words: Dict[str, str] = {"COMP_WORDS": "wenet-runtime ", "COMP_CWORD": "1"}
    code = "import sys; sys.argv[0] = 'wenet-runtime'; from wenet_runtime.cli import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        timeout=START_S,
        env={**os.environ, "_WENET_RUNTIME_COMPLETE": "complete_bash", **words},
        check=False,
    )
    assert set(found.stdout.split()) >= set(VERBS)


def test_the_version_loads_neither_settings_nor_the_command_line_s_library() -> None:
    code = (
        "import sys; from wenet_runtime.cli import main; sys.argv[1:] = ['--version']; main()\n"
        "print([name for name in ('typer', 'pydantic', 'numpy', 'asyncio') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=START_S)
    assert found.stdout.splitlines() == [f"wenet-runtime {__version__}", "[]"]


@pytest.mark.parametrize("verb", ["infer", "bench", "plot", "settings"])
def test_the_help_of_a_verb_loads_no_heavy_library(verb: str) -> None:
    code = (
        f"import sys; from wenet_runtime.cli import main; sys.argv[1:] = ['{verb}', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = ('numpy', 'onnxruntime', 'onnx', 'fastapi', 'uvicorn', 'PIL', 'matplotlib', 'http.client')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=START_S)
    assert found.stdout.splitlines()[-1] == "[]"


def test_nothing_is_coloured_where_colours_are_not_wanted_or_nobody_looks() -> None:
    for environment in ({"NO_COLOR": "1"}, {"FORCE_COLOR": "0", "TERM": "xterm-256color"}):
        for words in (["--help"], ["moeds"], ["settings"]):
            found = run(*words, **environment)
            assert "\x1b" not in found.stdout + found.stderr


def test_a_bar_is_without_colours_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import re

    from rich.console import Console

    from wenet_runtime.cli.progress import Bar

    def drawn() -> str:
        console = Console(file=io.StringIO(), force_terminal=True, color_system="256", width=80)
        bar = Bar(ticking=False, console=console)
        bar("building m0", 1, 3)
        bar.close()
        return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]

    colour = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|38;5;\d+)[0-9;]*m")
    assert colour.search(drawn())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(drawn())


def test_verify_tells_what_it_verified_as_json(command: Any, bundle: Bundle) -> None:
    found = json.loads(command("verify", "--bundle", bundle.path, "--json").stdout)
    assert (found["bundle_sha256"], found["model"], found["modes"]) == (bundle.sha256, "tiny", ["m2", "m1", "m0"])
    assert set(found["files"]) == set(bundle.manifest.files)
    assert all(len(one) == 64 for one in found["files"].values())


def test_a_meter_that_was_asked_for_and_is_not_here_exits_5(command: Any, bundle_path: Path, tmp_path: Path) -> None:
    found = command(
        "--bundle", bundle_path, "--cache-dir", tmp_path / "cache", "--profile-rounds", 10, "--engine", "sim",
        "--meter", "nvml", "--port", 0,
    )  # fmt: skip
    assert found.exit_code == 5
    assert "Traceback" not in found.stderr


def test_each_way_to_end_has_its_exit_code(command: Any, bundle_path: Path, own_bundle: Path, tmp_path: Path) -> None:
    sim = ["--bundle", bundle_path, "--cache-dir", tmp_path / "cache", "--profile-rounds", 10, "--engine", "sim"]
    (own_bundle / "manifest.json").write_text("{}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        codes = {
            0: ["modes", "--bundle", bundle_path],
            1: ["profile", *sim[:-1], "json:JSONDecoder"],  # no engine
            2: ["modes", "--bundle", tmp_path / "nowhere"],
            3: ["verify", "--bundle", own_bundle],
            4: [*sim, "--budget-ms", "0.001", "--port", 0],
            5: [*sim, "--meter", "json:JSONDecoder", "--port", 0],
            6: [*sim, "--port", taken.getsockname()[1]],
        }
        found = {code: command(*words).exit_code for code, words in codes.items()}
    assert found == {code: code for code in codes}


@pytest.mark.parametrize(("option", "name"), [("--engine", "trtt"), ("--meter", "nmvl")])
def test_a_misspelt_engine_or_meter_is_a_wrong_setting(
    command: Any, bundle_path: Path, tmp_path: Path, option: str, name: str
) -> None:
    sim = ["--bundle", bundle_path, "--cache-dir", tmp_path / "cache", "--profile-rounds", 10, "--engine", "sim"]
    found = command("profile", *sim, option, name)
    assert (found.exit_code, found.stdout) == (2, "")
    assert "did you mean" in found.stderr
    assert "Known are auto, " in found.stderr


@pytest.mark.parametrize("words", [["settings"], ["settings", "--json"], ["--help"], ["--version"], ["doctor"]])
def test_a_full_stdout_is_one_line(words: List[str]) -> None:
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [*START, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=START_S, check=False
        )
    said = "wenet-runtime: cannot write to stdout (No space left on device): make room there\n"
    assert (found.returncode, found.stderr) == (1, said)


def test_a_stdout_that_nobody_reads_ends_it_without_a_word() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        found = subprocess.run(
            [*START, "settings"], stdout=gone, stderr=subprocess.PIPE, text=True, timeout=START_S, check=False
        )
    assert (found.returncode, found.stderr) == (1, "")


def test_a_letter_that_stdout_lacks_is_written_as_its_number() -> None:
    code = (
        "from unittest import mock; from wenet_runtime.service.check import WARN, Check\n"
        "one = Check('power setting', WARN, '5W', 'set another')\n"
        "with mock.patch('wenet_runtime.service.doctor.examine', lambda settings: [one]):\n"
        "    from wenet_runtime.cli import main; import sys; sys.argv[1:] = ['doctor']; main()"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=START_S, check=False,
        env={**os.environ, **ascii_only},
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")
    assert "\\u2192 set another" in found.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bundle", "nowhere"], "no bundle at 'nowhere'"),
        (["--tls-cert", "x"], "--tls-cert and --tls-key go together"),
        (["serve", "--config", "bad.toml"], "bad.toml is no TOML"),
    ],
)
def test_off_a_terminal_an_error_before_the_settings_are_known_is_a_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: List[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("port = ")
    found = run(*words, WENET_ENGIN="trt")
    lines = [json.loads(line) for line in found.stderr.splitlines()]
    assert found.returncode == 2
    assert lines[-1]["level"] == "error"
    assert said in lines[-1]["message"]
    plain = run(*words, "--log-format", "text")
    assert (plain.returncode, plain.stderr[:15]) == (2, "wenet-runtime: ")
    assert run(*words, WENET_LOG_FORMAT="text").stderr == plain.stderr


def test_the_daemon_warns_of_a_variable_that_is_nearly_a_setting(own_bundle: Path) -> None:
    (own_bundle / "manifest.json").write_text("{}")
    found = run("--bundle", str(own_bundle), WENET_ENGIN="sim")
    first, last = [json.loads(line) for line in found.stderr.splitlines()]
    assert (first["level"], last["level"], found.returncode) == ("warning", "error", 3)
    assert first["message"].endswith("which is no setting: did you mean WENET_ENGINE?")
