"""The whole road for the dense network: its grouped layers answer over HTTP, and the budget switches its modes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.test_road import Daemon, accurate_mode_within, agreement, trainer
from tests.trainer.few_digits import FEW, FewDigits
from wenet_runtime.bundle import Bundle
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, materialize
from wenet_trainer.data.base import normalise, write_pngs


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run/` and `bundle/`, made by the three commands."""
    out = tmp_path_factory.mktemp("dense")
    run, bundle = str(out / "run"), str(out / "bundle")
    trainer("train", "--out", run, "--data", FEW, "--model", "digits_mlp", "--epochs", "1", "--batch", "32")
    # Measured one by one: a layer table, as `test_road` has one, is more measurements and waits for a quiet machine.
    trainer("explore", "--out", run, "--search-images", "64", "--modes", "4", "--evaluations", "12", "--measured")
    trainer("export", "--out", run, "--bundle", bundle)
    return out


@pytest.fixture(scope="module")
def daemon(road: Path) -> Any:
    served = Daemon(road / "bundle", road / "cache", "--budget-ms", "500")
    yield served
    served.process.terminate()
    assert served.process.wait(20) == 0


def test_every_mode_answers_a_posted_png_as_it_was_exported(road: Path, daemon: Daemon) -> None:
    source = FewDigits()
    images = source.test().first(2)
    paths = write_pngs(images, road / "images", 2)
    bundle = Bundle(road / "bundle")
    assert all(layer.kind == "linear" for layer in bundle.manifest.layers)
    inputs = normalise(images.pixels, source.preprocess).numpy()
    for mode in bundle.modes:
        model = materialize(Supernet.of(bundle), mode.groups, bundle.statistics(mode), precision=mode.precision)
        expected = OrtBackend().load_bytes(model, name=mode.id).infer({"image": inputs})["logits"]
        for row, path in enumerate(paths):
            status, headers, body = daemon.ask(
                "POST", "/infer", path.read_bytes(), {"Content-Type": "image/png", "WeNet-Mode": mode.id}
            )
            assert (status, headers["wenet-mode"]) == (200, mode.id)
            assert np.allclose(body["outputs"][0]["data"], expected[row], atol=agreement(mode, expected[row]))


def test_the_budget_decides_the_mode(road: Path, daemon: Daemon) -> None:
    (path,) = write_pngs(FewDigits().test().first(1), road / "images", 1)
    modes = daemon.ask("GET", "/modes")[2]["modes"]
    image = {"Content-Type": "image/png"}
    accurate_mode_within(
        5000, modes, lambda budget: daemon.ask("POST", "/infer", path.read_bytes(), {**image, **budget})
    )
    none = daemon.ask("POST", "/infer", path.read_bytes(), {**image, "WeNet-Budget-Ms": "0.001"})
    assert none[0] == 422
