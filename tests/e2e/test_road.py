"""The whole road, small: train → explore → export → daemon → POST /infer, each step the command a person types."""

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.few_digits import FEW, FewDigits
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import Supernet, materialize
from wenet_trainer.data.base import normalise, write_pngs

ROOT = Path(__file__).resolve().parents[2]


def trainer(*words: str) -> str:
    """Run `wenet-trainer …`; returns its stdout."""
    command = [sys.executable, "-c", "from wenet_trainer.cli import main; main()", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run/` and `bundle/`, made by the three commands."""
    out = tmp_path_factory.mktemp("road")
    run, bundle = str(out / "run"), str(out / "bundle")
    trainer("train", "--out", run, "--data", FEW, "--model", "tiny", "--epochs", "1", "--batch", "32")
    trainer("explore", "--out", run, "--search-images", "64", "--modes", "4", "--evaluations", "40")
    trainer("export", "--out", run, "--bundle", bundle)
    return out


class Daemon:
    """`wenet-runtime` on a free port."""

    def __init__(self, bundle: Path, cache: Path, *flags: str) -> None:
        self.log = cache.parent / "daemon.log"
        command = [sys.executable, "-m", "wenet_runtime.cli", "--bundle", str(bundle), "--port", "0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--cache-dir", str(cache), "--profile-rounds", "20", *flags], stderr=log, cwd=ROOT
            )
        self.port = self._port()

    def _port(self) -> int:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            found = re.search(r"serving .*:(\d+) ", self.log.read_text())
            if found:
                return int(found.group(1))
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, json.loads(content)


@pytest.fixture(scope="module")
def daemon(road: Path) -> Any:
    served = Daemon(road / "bundle", road / "cache", "--budget-ms", "500")
    yield served
    if served.process.poll() is None:
        served.process.kill()
        served.process.wait()


def agreement(mode: Mode, expected: np.ndarray[Any, Any]) -> float:
    """How far answers may differ: another emission rounds int8 elsewhere."""
    return 1e-4 if mode.precision == "fp32" else PRECISIONS[mode.precision] * float(np.abs(expected).max())


def test_a_posted_png_is_answered_as_the_exported_mode_answers(road: Path, daemon: Daemon) -> None:
    source = FewDigits()
    images = source.test().first(3)
    paths = write_pngs(images, road / "images", 3)
    bundle = Bundle(road / "bundle")
    inputs = normalise(images.pixels, source.preprocess).numpy()
    name = bundle.manifest.inputs[0].name
    for mode in bundle.modes:
        model = materialize(Supernet.of(bundle), mode.groups, bundle.statistics(mode), precision=mode.precision)
        expected = OrtBackend().load_bytes(model, name=mode.id).infer({name: inputs})["logits"]
        for row, path in enumerate(paths):
            status, headers, body = daemon.ask(
                "POST", "/infer", path.read_bytes(), {"Content-Type": "image/png", "WeNet-Mode": mode.id}
            )
            assert (status, headers["wenet-mode"]) == (200, mode.id)
            assert np.allclose(body["outputs"][0]["data"], expected[row], atol=agreement(mode, expected[row]))


def accurate_mode_within(
    budget_ms: int, modes: list[dict[str, Any]], ask: Callable[[dict[str, str]], tuple[int, dict[str, str], Any]]
) -> None:
    """Each answer is of an offered mode, and soon of a most accurate one: a crowded machine's one hiccup may cost some.

    A mode that took long once is expected to take long again until others have shown that it was a hiccup. Of modes
    that a few test images cannot tell apart the quickest answers, whichever that is on this machine.
    """
    accuracies = {mode["id"]: mode["accuracy"] for mode in modes}
    end = time.monotonic() + 60
    while True:
        status, headers, _ = ask({"WeNet-Budget-Ms": str(budget_ms)})
        assert status == 200
        if accuracies[headers["wenet-mode"]] == max(accuracies.values()):
            return
        assert time.monotonic() < end, headers


def test_the_budget_decides_the_mode(daemon: Daemon) -> None:
    modes = daemon.ask("GET", "/modes")[2]["modes"]
    image = np.zeros((1, 1, 32, 32), np.float32).tobytes()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
    headers["Accept"] = "application/json"
    accurate_mode_within(5000, modes, lambda budget: daemon.ask("POST", "/infer", image, {**headers, **budget}))
    none = daemon.ask("POST", "/infer", image, {**headers, "WeNet-Budget-Ms": "0.001"})
    assert none[0] == 422
    assert none[2]["type"] == "urn:wenet:problem:budget-impossible"


def test_sigterm_drains_and_the_daemon_exits_0(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(20) == 0
    assert "drained" in daemon.log.read_text()


def test_a_warm_start_measures_nothing_again(road: Path, daemon: Daemon) -> None:
    assert daemon.process.wait(20) == 0
    again = Daemon(road / "bundle", road / "cache")
    try:
        assert "profiling" not in again.log.read_text()
    finally:
        again.process.terminate()
        assert again.process.wait(20) == 0
