"""Libraries and meters are asked in processes of their own: what crashes, hangs or talks there harms nobody."""

import os
import sys
import time
from pathlib import Path
from typing import Any, Dict

import pytest

from tests.runtime import sysfs_trees
from wenet_runtime.service.probes import Answer, ask, meter_question

LONG_S = 60.0
CODE = (sys.executable, "-c")


def asked(code: str, timeout_s: float = LONG_S) -> Answer:
    return ask({"x": [code]}, timeout_s=timeout_s, command=CODE)["x"]


def test_an_answer_is_what_the_child_tells() -> None:
    assert asked('print(\'{"members": {"version": "1.0"}}\')') == Answer({"version": "1.0"})
    assert asked('print(\'{"failure": "no GPU"}\')') == Answer(failure="no GPU")


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("import os; os.abort()", "it crashed (SIGABRT)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it crashed (SIGSEGV)"),
        ("raise SystemExit(3)", "it ended with exit code 3 and without an answer"),
        ("print('nonsense')", "it ended with exit code 0 and without an answer"),
        ("print('[1]')", "it ended with exit code 0 and without an answer"),
        ("print('{\"members\": 1}')", "it ended with exit code 0 and without an answer"),
    ],
)
def test_a_child_that_crashes_or_talks_nonsense_is_told(code: str, failure: str) -> None:
    assert asked(code) == Answer(failure=failure)


def test_a_child_that_hangs_is_ended_with_its_own_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(note)!r} + '.new', 'w').write(str(child.pid)); os.rename({str(note)!r} + '.new', {str(note)!r})\n"
        "time.sleep(600)"
    )
    # Long enough for the child to have a child, however crowded the machine; a test waits no longer than it must.
    for timeout_s in (2.0, 30.0):
        assert asked(code, timeout_s) == Answer(failure=f"it did not answer within {timeout_s:g} s")
        if note.exists():
            break
    pid = int(note.read_text())
    for _ in range(6000):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return  # whoever inherited it has not taken note yet
        time.sleep(0.01)
    raise AssertionError("its child runs on")


def test_one_that_hangs_costs_the_others_nothing() -> None:
    codes = {"slow": ["import time; time.sleep(600)"], "good": ['print(\'{"members": {"a": 1}}\')']}
    found: Dict[str, Answer] = {}
    for timeout_s in (5.0, 60.0):
        found = ask(codes, timeout_s=timeout_s, command=CODE)
        if not found["good"].failure:
            break
    assert found["good"] == Answer({"a": 1})
    assert found["slow"].failure


def test_the_real_questions_are_answered_here() -> None:
    found = ask({"onnxruntime": ["onnxruntime"], "engine": ["engine", "ort"]}, timeout_s=LONG_S)
    assert found["onnxruntime"].failure == ""
    assert "CPUExecutionProvider" in found["onnxruntime"].members["providers"]
    assert found["engine"] == Answer({"class": "OrtBackend"})


@pytest.mark.parametrize(
    ("words", "text"), [(["engine", "abacus"], "unknown engine 'abacus'"), (["tensorrt"], "No module named 'tensorrt'")]
)
def test_what_is_missing_is_told_in_the_library_s_own_words(words: Any, text: str) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        assert text in ask({"x": words}, timeout_s=LONG_S)["x"].failure
    else:
        pytest.skip("this machine has TensorRT")


def library(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of that name, for child processes."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))


@pytest.mark.parametrize(
    ("version", "supported"), [("8.2.1.8", True), ("10.13.3.9", True), ("8.0.1.6", False), ("11.4.0", False)]
)
def test_tensorrt_s_version_is_told_and_whether_the_engine_runs_on_it(
    version: str, supported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(tmp_path / "lib", "tensorrt", f"__version__ = {version!r}", monkeypatch)
    assert ask({"x": ["tensorrt"]}, timeout_s=LONG_S)["x"] == Answer({"version": version, "supported": supported})


def test_a_library_may_print_and_crash_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import atexit, os\nprint('hello')\nos.write(1, b'hello')\natexit.register(os.abort)\n__version__ = '10.3.0'"
    library(tmp_path / "lib", "tensorrt", text, monkeypatch)
    assert ask({"x": ["tensorrt"]}, timeout_s=LONG_S)["x"].members["version"] == "10.3.0"


def test_a_file_in_the_present_directory_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("__version__ = 'false'\nget_available_providers = list")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert ask({"x": ["onnxruntime"]}, timeout_s=LONG_S)["x"].members["version"] != "false"


def test_a_meter_tells_its_first_reading_and_why_others_were_passed_over(tmp_path: Path) -> None:
    sysfs_trees.nano(tmp_path, milliamperes=400)
    words = meter_question("auto", on_gpu=False, rail=None, sysfs=tmp_path)
    members = ask({"x": words}, timeout_s=LONG_S)["x"].members
    assert (members["name"], members["source"]) == ("ina3221", "rail:POM_5V_IN")
    assert members["watts"] == pytest.approx(2.0)
    assert members["state"]["status"] == "ok"
    assert members["passed_over"] == {}


def test_a_meter_that_cannot_deliver_is_a_failure(tmp_path: Path) -> None:
    words = meter_question("ina3221", on_gpu=False, rail=None, sysfs=tmp_path)
    assert "no INA3221 power sensor" in ask({"x": words}, timeout_s=LONG_S)["x"].failure


def test_a_rail_and_a_gpu_are_passed_on(tmp_path: Path) -> None:
    sysfs_trees.nano(tmp_path)
    words = meter_question("auto", on_gpu=True, rail="POM_5V_GPU", sysfs=tmp_path)
    assert ask({"x": words}, timeout_s=LONG_S)["x"].members["source"] == "rail:POM_5V_GPU"
    (tmp_path / "none").mkdir()
    words = meter_question("auto", on_gpu=True, rail=None, sysfs=tmp_path / "none")
    told = ask({"x": words}, timeout_s=LONG_S)["x"].members
    assert "it does not see the GPU" in told["passed_over"].get("rapl", told["name"])
