"""`wenet-runtime build --engine trt` on the double of TensorRT: verified, refused, killed and gone on with.

Nothing here is a measurement: the double computes with ONNX Runtime.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, List

import pytest

from tests.doubles.install import install
from tests.doubles.tensorrt_double.names import missing
from tests.runtime.fakes import Client
from tests.runtime.trt_rig import VERSIONS
from wenet_runtime.engines.trt_engine import TrtEngine
from wenet_runtime.service.daemon import open_daemon
from wenet_runtime.settings import Settings

PATIENCE_S = 120
MARK = "WENET_TEST_BUILT"

# A process with the double, which waits before it builds a mode that the test holds, and counts what it built.
CHILD = f"""
import os, sys, time
import pytest
from tests.doubles.install import install
from wenet_runtime.engines.trt import TrtBackend
double = install(pytest.MonkeyPatch(), "8.2.1")
build, folder = TrtBackend.build, os.environ["{MARK}"]
def held(self, graph, name):
    open(os.path.join(folder, name + ".began"), "w").close()
    while os.path.exists(os.path.join(folder, name + ".held")):
        time.sleep(0.01)
    return build(self, graph, name)
TrtBackend.build = held
from wenet_runtime.cli import main
try:
    main()
finally:
    sys.stderr.write("built %d engines\\n" % len(double.built))
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_engines_agree_with_onnx_runtime_in_every_version(
    version: str, command: Any, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = install(monkeypatch, version)
    found = command(
        *("build", "--engine", "trt", "--bundle", bundle_path, "--cache-dir", tmp_path / "cache"),
        *("--verify", "--json", "--samples", 3),
    )
    assert found.exit_code == 0, found.stderr
    for row in json.loads(found.stdout)["modes"]:
        assert row["verification"]["deviation"] <= row["verification"]["tolerance"] == 1e-2  # it computes in fp16
    double.assert_all_freed()


def test_an_engine_that_deviates_is_refused_and_the_daemon_serves_the_others(
    command: Any, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "8.2.1")
    infer, loads = TrtEngine.infer, []

    def bent(self: TrtEngine, inputs: Any) -> Any:
        answers = infer(self, inputs)
        return {name: value * (1.2 if self is loads[0] else 1) for name, value in answers.items()}

    original = TrtEngine.__init__

    def noted(self: TrtEngine, *parts: Any, **how: Any) -> None:
        loads.append(self)
        original(self, *parts, **how)

    with monkeypatch.context() as patched:
        patched.setattr(TrtEngine, "__init__", noted)
        patched.setattr(TrtEngine, "infer", bent)
        words = ["build", "--engine", "trt", "--no-tune", "--verify"]  # tuning would load engines too
        found = command(*words, "--bundle", bundle_path, "--cache-dir", tmp_path / "cache")
    assert found.exit_code == 1
    assert "m2 is REFUSED: it deviates from ONNX Runtime by 0.2 of the largest value (allowed 0.01)" in found.stderr
    given = Settings(bundle=bundle_path, cache_dir=tmp_path / "cache", engine="trt", profile_rounds=10, tune=False)
    daemon = open_daemon(given)
    client = Client(daemon.app)
    assert client.infer().headers["wenet-mode"] == "m1"
    assert "refused it" in client.get("/modes").json()["modes"][0]["out_of_service"]
    daemon.close(5)


def run(marks: Path, bundle_path: Path, cache: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            *(sys.executable, "-c", CHILD, "build", "--engine", "trt", "--json", "--no-tune"),
            *("--bundle", str(bundle_path), "--cache-dir", str(cache)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={
            **os.environ,
            MARK: str(marks),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])),
        },
    )


def test_a_build_that_is_killed_goes_on_with_the_engines_it_had_finished(bundle_path: Path, tmp_path: Path) -> None:
    reason = missing("8.2.1")
    if reason:
        pytest.skip(reason)
    marks, cache = tmp_path / "marks", tmp_path / "cache"
    marks.mkdir()
    (marks / "m1.held").touch()
    first = run(marks, bundle_path, cache)
    try:
        for _ in range(100 * PATIENCE_S):
            if (marks / "m1.began").exists():
                break
            assert first.poll() is None, first.communicate()
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        assert first.communicate(timeout=PATIENCE_S)[0] == b""
    finally:
        first.kill()
    assert not list(cache.glob("*/*/index.json"))

    (marks / "m1.held").unlink()
    built: List[int] = []
    for _ in range(2):
        again = run(marks, bundle_path, cache)
        out, err = again.communicate(timeout=PATIENCE_S)
        assert again.returncode == 0, err.decode()
        assert [row["id"] for row in json.loads(out)["modes"]] == ["m2", "m1", "m0"]
        built.append(int(err.decode().split("built ")[-1].split(" ")[0]))
    assert built == [2, 0]  # m2's lay there; and then all did
    (folder,) = (path.parent for path in cache.glob("*/*/index.json"))
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
