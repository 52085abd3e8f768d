"""The contract of every engine, whatever runs behind it; then what is each one's own."""

import subprocess
import sys
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest

from tests.supernets import images
from wenet_runtime.bundle import Bundle
from wenet_runtime.engines import ENGINES
from wenet_runtime.engines.base import Backend, Engine
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.engines.sim import SimBackend
from wenet_runtime.errors import EngineError
from wenet_runtime.materialize import Supernet, materialize
from wenet_runtime.registry import load


@pytest.fixture(params=sorted(ENGINES))
def backend(request: Any, bundle: Bundle) -> Iterator[Backend]:
    one: Backend = load(ENGINES, request.param, kind="engine", error=EngineError)(bundle, 1)
    yield one
    one.close()


@pytest.fixture
def engine(backend: Backend, bundle: Bundle) -> Iterator[Engine]:
    mode = bundle.mode("m0")
    one = backend.load(mode, lambda: materialize(Supernet.of(bundle), mode.groups, bundle.statistics(mode)))
    yield one
    one.close()


class TestEveryEngine:
    """What `engines.base` promises."""

    def test_the_backend_says_its_name_and_version(self, backend: Backend) -> None:
        assert backend.name in ENGINES
        assert backend.version

    @pytest.mark.parametrize("rows", [1, 3])
    def test_every_output_comes_with_the_input_s_batch(self, engine: Engine, bundle: Bundle, rows: int) -> None:
        outputs = engine.infer({"input": images(rows)})
        for spec in bundle.manifest.outputs:
            assert outputs[spec.name].shape == (rows, *spec.shape[1:])
            assert outputs[spec.name].dtype == spec.dtype

    def test_the_same_input_gives_the_same_output(self, engine: Engine) -> None:
        first, second = (engine.infer({"input": images(2)})["logits"] for _ in range(2))
        assert np.array_equal(first, second)

    def test_a_row_does_not_depend_on_its_neighbours(self, engine: Engine) -> None:
        together = engine.infer({"input": images(3)})["logits"]
        alone = engine.infer({"input": images(3)[1:2]})["logits"]
        assert np.allclose(together[1:2], alone, atol=1e-5)

    def test_an_answer_is_not_overwritten_by_the_next(self, engine: Engine) -> None:
        first = engine.infer({"input": images(2, seed=1)})["logits"]
        kept = first.copy()
        engine.infer({"input": images(2, seed=2)})
        assert np.array_equal(first, kept)

    def test_a_closed_engine_refuses_and_closing_twice_is_harmless(self, engine: Engine) -> None:
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            engine.infer({"input": images(1)})


class TestOnnxRuntime:
    @pytest.fixture
    def engine(self, bundle: Bundle) -> Engine:
        mode = bundle.mode("m0")
        return OrtBackend().load(mode, lambda: materialize(Supernet.of(bundle), mode.groups))

    @pytest.mark.parametrize(
        "inputs",
        [
            {"input": np.zeros((1, 1, 9, 9), np.float64)},
            {"input": np.zeros((1, 2, 8, 8), np.float32)},
            {"input": np.zeros(8, np.float32)},
            {"other": images(1)},
            {},
        ],
    )
    def test_a_failing_run_is_an_engine_error_and_the_engine_goes_on(
        self, engine: Engine, inputs: Dict[str, Any]
    ) -> None:
        with pytest.raises(EngineError, match="ONNX Runtime failed"):
            engine.infer(inputs)
        assert engine.infer({"input": images(1)})["logits"].shape == (1, 10)

    @pytest.mark.parametrize("model", [b"", b"not a model", b"\x08\x07"])
    def test_a_model_that_does_not_load_is_named(self, model: bytes) -> None:
        with pytest.raises(EngineError, match="cannot load mode 'm0'"):
            OrtBackend().load_bytes(model, name="m0")


class TestSimulated:
    def test_time_is_fixed_part_plus_macs_for_every_row_shared_by_threads(self, bundle: Bundle) -> None:
        slept: List[float] = []
        mode = bundle.mode("m2")
        for threads in (1, 2):
            SimBackend(bundle, threads, sleep=slept.append).load(mode, lambda: b"").infer({"input": images(3)})
        wanted_s = 3 * (0.2e-3 + mode.macs / 10e9)
        assert slept == [pytest.approx(wanted_s), pytest.approx(wanted_s / 2)]

    def test_the_model_is_not_built(self, bundle: Bundle) -> None:
        def never() -> bytes:
            raise AssertionError("built")

        engine = SimBackend(bundle, sleep=lambda seconds: None).load(bundle.mode("m0"), never)
        assert engine.infer({"input": images(1)})["logits"].sum() == 1


def test_looking_at_the_table_imports_no_engine() -> None:
    code = "import sys, wenet_runtime.engines, wenet_runtime.meters; print('onnxruntime' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=60)
    assert found.stdout.strip() == b"False"
