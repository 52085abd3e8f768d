"""A bundle that the trainer exported under a newer Python works here, on this Python and its older libraries."""

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from wenet_runtime.builder import DeviceCache
from wenet_runtime.bundle import Bundle
from wenet_runtime.device import this_device
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, materialize
from wenet_runtime.pool import Pool

EXPORTED = os.environ.get("WENET_TEST_BUNDLE", "")

pytestmark = pytest.mark.skipif(
    not EXPORTED and sys.version_info >= (3, 10),
    reason="the trainer's own tests cover this Python; `make unit38` names an exported bundle",
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    if not EXPORTED:
        pytest.skip("WENET_TEST_BUNDLE names no exported bundle: run `make test`, whose trainer tests write one")
    return Bundle(Path(EXPORTED))


def test_every_exported_mode_loads_and_answers_its_golden_input(bundle: Bundle, tmp_path: Path) -> None:
    backend = OrtBackend()
    cache = DeviceCache(tmp_path, bundle, this_device(backend.name, backend.version, 1), backend)
    # The pool refuses a mode that does not load, or whose answer deviates from torch's.
    pool = Pool(bundle, backend, cache.artifact)
    assert pool.resident == [mode.id for mode in bundle.modes]
    pool.close()


def test_a_golden_answer_of_another_mode_would_be_noticed(bundle: Bundle) -> None:
    golden = bundle.golden()
    first, last = (
        golden[f"{mode.id}.{bundle.manifest.outputs[0].name}"] for mode in (bundle.modes[0], bundle.modes[-1])
    )
    assert np.abs(first - last).max() > 1e-2 * np.abs(first).max()


def test_topology_and_modes_keep_to_opset_13(bundle: Bundle) -> None:
    supernet = Supernet.of(bundle)
    models = [bundle.topology(), *(materialize(supernet, mode.groups) for mode in bundle.modes)]
    for data in models:
        model = onnx.load_model_from_string(data)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
        assert model.ir_version <= 8
    assert len(models[0]) < 100_000
