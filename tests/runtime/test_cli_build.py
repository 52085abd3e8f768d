"""`wenet-runtime build`: what it prints and where, what it refuses, and that a kill leaves nothing half-made."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional

import pytest
from numpy.typing import NDArray

from tests.runtime.fakes import Client
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.base import Artifact
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import EngineError
from wenet_runtime.service.daemon import open_daemon
from wenet_runtime.settings import Settings

HERE = __name__
PATIENCE_S = 60
MARK = "WENET_TEST_BUILT"  # a folder: what is built leaves a file, and waits for one


class WaitingBackend(OrtBackend):
    """Says which mode it builds, and builds it once the test lets it."""

    name = "waiting"

    def build(self, graph: Any, name: str) -> Artifact:
        folder = Path(os.environ[MARK])
        (folder / f"{name}.began").touch()
        for _ in range(100 * PATIENCE_S):
            if (folder / f"{name}.go").exists():
                return super().build(graph, name)
            time.sleep(0.01)
        raise AssertionError("the test never let it build")


class BentBackend(OrtBackend):
    """Answers of some modes are a tenth too large; their golden ones too."""

    name = "bent"
    bent: ClassVar[List[str]] = []

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> Any:
        engine = super().load(mode, artifact, threads=threads)
        return BentEngine(engine) if mode.id in self.bent else engine


class BentEngine:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> Dict[str, NDArray[Any]]:
        return {name: value * value.dtype.type(1.1) for name, value in self._inner.infer(inputs).items()}

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def bent(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """Modes that answer wrongly; the test fills it."""
    found: List[str] = []
    monkeypatch.setattr(BentBackend, "bent", found)
    return found


@pytest.fixture
def build(command: Any, bundle_path: Path, tmp_path: Path) -> Any:
    """Runs the verb on the shared bundle, with an engine whose answers can be bent."""
    words = ["--bundle", bundle_path, "--cache-dir", tmp_path / "cache", "--no-tune", "--engine", f"{HERE}:BentBackend"]
    return lambda *more, verb="build": command(verb, *words, *more)


def settings(bundle_path: Path, tmp_path: Path, **more: Any) -> Settings:
    given = {"bundle": bundle_path, "cache_dir": tmp_path / "cache", "profile_rounds": 10, "tune": False}
    return Settings(**{**given, "engine": f"{HERE}:BentBackend", **more})


def test_json_says_what_was_built_where_and_how_long_it_took(build: Any, bundle: Bundle, tmp_path: Path) -> None:
    found = build("--json")
    assert found.exit_code == 0
    members = json.loads(found.stdout)
    assert (members["bundle_sha256"], members["model"], members["verified"]) == (bundle.sha256, "tiny", False)
    assert members["engine"]["name"] == "bent"
    assert Path(members["cache"]).parent.parent == tmp_path / "cache"
    assert [row["id"] for row in members["modes"]] == ["m2", "m1", "m0"]
    for row in members["modes"]:
        assert row["memory_mb"] > 0
        assert row["built_in_s"] >= 0
        assert (row["precision"], row["refused"], row["verification"]) == ("fp32", None, None)
    assert members["seconds"] >= sum(row["built_in_s"] for row in members["modes"]) - 0.01
    assert members["memory_mb"] > 0
    assert "building m2 0/3" in found.stderr
    assert "building 3/3" in found.stderr


def test_what_lies_in_the_cache_is_not_built_again(build: Any) -> None:
    build()
    found = build("--json")
    assert [row["built_in_s"] for row in json.loads(found.stdout)["modes"]] == [None] * 3
    assert "building" not in found.stderr


def test_without_json_nothing_goes_to_stdout(build: Any) -> None:
    found = build("--verify")
    assert (found.exit_code, found.stdout) == (0, "")


def test_what_agrees_with_onnx_runtime_is_told_with_its_figures(build: Any, tmp_path: Path) -> None:
    found = build("--verify", "--json", "--samples", "5")
    assert found.exit_code == 0
    members = json.loads(found.stdout)
    assert members["verified"]
    for row in members["modes"]:
        assert row["refused"] is None
        figures = row["verification"]
        assert figures["rows"] == 7  # golden ones and five
        assert 0 <= figures["deviation"] <= figures["tolerance"] == 1e-3
        assert figures["top1"] == 1
    assert "(allowed 0.001), same top-1 in 100.0% of 7" in found.stderr
    assert not list(tmp_path.glob("cache/*/*/refused.json"))


def test_a_mode_that_deviates_is_named_with_its_figure_and_exits_1(build: Any, bent: List[str], tmp_path: Path) -> None:
    bent.append("m1")
    found = build("--verify", "--json")
    assert found.exit_code == 1
    assert "m1 is REFUSED: it deviates from ONNX Runtime by 0.1 of the largest value (allowed 0.001)\n" in found.stderr
    assert found.stderr.endswith("wenet-runtime: 1 of 3 modes deviate and will not serve: m1\n")
    refused = {row["id"]: row["refused"] for row in json.loads(found.stdout)["modes"]}
    assert refused.pop("m1").startswith("it deviates")
    assert refused == {"m2": None, "m0": None}
    assert list(tmp_path.glob("cache/*/*/refused.json"))


def test_a_later_build_says_so_and_a_later_verification_lifts_it(build: Any, bent: List[str], tmp_path: Path) -> None:
    bent.append("m1")
    build("--verify")
    later = build("--json")
    assert (later.exit_code, "m1 is REFUSED" in later.stderr) == (0, True)
    assert json.loads(later.stdout)["modes"][1]["refused"].startswith("it deviates")
    listed = json.loads(build(verb="modes").stdout)["modes"]
    assert [bool(row["refused"]) for row in listed] == [False, True, False]
    bent.clear()
    assert build("--verify").exit_code == 0
    assert "REFUSED" not in build().stderr


def test_the_daemon_does_not_offer_what_was_refused(
    build: Any, bent: List[str], bundle_path: Path, tmp_path: Path
) -> None:
    bent.append("m2")
    build("--verify")
    bent.clear()  # else its golden answer would give it away too
    daemon = open_daemon(settings(bundle_path, tmp_path))
    client = Client(daemon.app)
    assert client.infer().headers["wenet-mode"] == "m1"
    rows = {row["id"]: (row["resident"], row["out_of_service"]) for row in client.get("/modes").json()["modes"]}
    assert rows["m1"] == (True, None)
    assert rows["m2"][0] is False
    assert "refused it: it deviates from ONNX Runtime by 0.1" in rows["m2"][1]
    daemon.runtime.close()


def test_when_all_are_refused_nothing_is_served(
    build: Any, command: Any, bent: List[str], bundle_path: Path, tmp_path: Path
) -> None:
    bent.extend(["m0", "m1", "m2"])
    found = build("--verify")
    assert found.exit_code == 1
    assert "3 of 3 modes deviate" in found.stderr
    with pytest.raises(EngineError, match="no mode can serve on this device"):
        open_daemon(settings(bundle_path, tmp_path))
    served = command(
        "--bundle", bundle_path, "--cache-dir", tmp_path / "cache", "--no-tune", "--engine", f"{HERE}:BentBackend"
    )
    assert served.exit_code == 1
    assert "wenet-runtime: no mode can serve on this device" in served.stderr


def test_a_wrong_golden_answer_takes_one_mode_out_and_not_the_daemon(
    bent: List[str], bundle_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bent.append("m2")
    daemon = open_daemon(settings(bundle_path, tmp_path))
    assert Client(daemon.app).infer().headers["wenet-mode"] == "m1"
    assert "mode 'm2' deviates from its golden output by 0.1" in daemon.runtime.pool.residency.out["m2"]
    assert "mode 'm2' is not served" in caplog.text
    daemon.runtime.close()


def test_made_up_answers_are_not_verified(command: Any, bundle_path: Path, tmp_path: Path) -> None:
    found = command("build", "--bundle", bundle_path, "--cache-dir", tmp_path / "cache", "--engine", "sim", "--verify")
    assert found.exit_code == 2
    assert "a simulated engine's answers are made up: choose a real --engine" in found.stderr


@pytest.mark.parametrize("verb", ["build", "modes"])
def test_an_engine_of_one_s_own_is_named_by_its_import_string(
    verb: str, command: Any, bundle_path: Path, tmp_path: Path
) -> None:
    words = [verb, "--bundle", bundle_path, "--cache-dir", tmp_path / "cache", "--engine", f"{HERE}:BentBackend"]
    assert command(*words).exit_code == 0


class Killable:
    """The verb as a process, which builds one mode after another as the test lets it."""

    def __init__(self, bundle_path: Path, tmp_path: Path) -> None:
        self.marks = tmp_path / "marks"
        self.marks.mkdir()
        self.bundle_path, self.cache = bundle_path, tmp_path / "cache"
        self.started: List[subprocess.Popen[bytes]] = []

    def start(self, warnings: str = "error") -> "subprocess.Popen[bytes]":
        words = ["build", "--json", "--no-tune", "--engine", f"{HERE}:WaitingBackend"]
        one = subprocess.Popen(
            [
                *(sys.executable, "-W", warnings, "-c", "from wenet_runtime.cli import main; main()", *words),
                *("--bundle", str(self.bundle_path), "--cache-dir", str(self.cache)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, MARK: str(self.marks), "PYTHONPATH": str(Path.cwd())},
        )
        self.started.append(one)
        return one

    def let(self, *mode_ids: str) -> None:
        for mode_id in mode_ids:
            (self.marks / f"{mode_id}.go").touch()

    def wait_until_building(self, mode_id: str, process: "subprocess.Popen[bytes]") -> None:
        for _ in range(100 * PATIENCE_S):
            if (self.marks / f"{mode_id}.began").exists():
                return
            assert process.poll() is None, process.communicate()
            threading.Event().wait(0.01)
        raise AssertionError(f"{mode_id} was never built")


@pytest.fixture
def killable(bundle_path: Path, tmp_path: Path) -> Any:
    one = Killable(bundle_path, tmp_path)
    yield one
    for process in one.started:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        process.wait(PATIENCE_S)


def test_a_build_that_is_killed_leaves_nothing_half_made_and_the_next_one_finishes(killable: Killable) -> None:
    killable.let("m2")
    first = killable.start()
    killable.wait_until_building("m1", first)
    first.send_signal(signal.SIGKILL)
    out, _ = first.communicate(timeout=PATIENCE_S)
    assert (first.returncode, out) == (-signal.SIGKILL, b"")
    folder = next(path for path in killable.cache.glob("*/*") if path.is_dir())
    assert not (folder / "index.json").exists()  # so nothing takes it for a cache

    killable.let("m2", "m1", "m0")
    second = killable.start()
    out, err = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0, err.decode()
    assert [row["id"] for row in json.loads(out)["modes"]] == ["m2", "m1", "m0"]
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["index.json", "lock", "m0.model", "m1.model", "m2.model", "modes.bin"]
    assert folder.stat().st_mode & 0o777 == 0o700
    third = killable.start()
    out, err = third.communicate(timeout=PATIENCE_S)
    assert third.returncode == 0, err.decode()
    assert [row["built_in_s"] for row in json.loads(out)["modes"]] == [None] * 3


def test_old_and_new_engines_that_a_killed_build_left_side_by_side_are_never_taken_for_a_cache(
    killable: Killable, bundle_path: Path, tmp_path: Path
) -> None:
    killable.let("m2", "m1", "m0")
    assert killable.start().wait(PATIENCE_S) == 0
    folder = next(path for path in killable.cache.glob("*/*") if path.is_dir())
    (folder / "m0.model").write_bytes(b"damaged")
    for mark in killable.marks.iterdir():
        mark.unlink()
    killable.let("m2")
    process = killable.start(warnings="ignore")  # it warns of the damage
    killable.wait_until_building("m1", process)
    process.kill()
    process.wait(PATIENCE_S)
    killable.let("m1", "m0")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(MARK, str(killable.marks))
        given = settings(bundle_path, tmp_path, engine=f"{HERE}:WaitingBackend")
        with pytest.warns(UserWarning, match="building all modes again"):
            daemon = open_daemon(given)
    assert Client(daemon.app).infer().headers["wenet-mode"] == "m2"
    daemon.runtime.close()
