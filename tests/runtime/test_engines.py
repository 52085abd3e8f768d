"""The contract of every engine, whatever runs behind it; then what is each one's own."""

import contextlib
import gc
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest

from tests.runtime.fakes import unbuilt
from tests.runtime.nets import SIDE, Net
from tests.runtime.ort_doubles import CUDA, TENSORRT, gpu
from tests.runtime.trt_rig import rigged
from tests.supernets import images, make_supernet, random_groups, random_statistics
from wenet_runtime.bundle import Accuracy, Bundle, Mode
from wenet_runtime.engines import ENGINES
from wenet_runtime.engines.base import Artifact, Backend, Engine
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.engines.ort_build import OUTSIDE_BYTES
from wenet_runtime.engines.sim import SimBackend
from wenet_runtime.errors import EngineError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import Supernet, lower, materialize
from wenet_runtime.mode_store import ModeStore, write_modes
from wenet_runtime.registry import load

MODE = Mode("m", {}, "fp32", Accuracy(0.5, 0.4, 0.6, 10), 1, 1, "test")


def wide(channels: int) -> Graph:
    """One 1×1 convolution of channels × channels weights."""
    net = Net(channels)
    return net.graph([net.conv("input", "conv", channels, channels, bias=False)])


def anonymous_mb() -> float:
    """Memory of this process that is no file's, MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


@pytest.fixture(params=sorted(ENGINES))
def backend(request: Any, bundle: Bundle) -> Iterator[Backend]:
    if request.param == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed here; it needs Python 3.10")
    if request.param == "trt":
        with rigged(request.getfixturevalue("monkeypatch"), bundle) as rig:
            yield rig.backend
        return
    on_double = request.param in ("ort-cuda", "ort-tensorrt")
    with gpu(CUDA, TENSORRT) if on_double else contextlib.nullcontext():
        one: Backend = load(ENGINES, request.param, kind="engine", error=EngineError)(bundle, 1)
        yield one
        one.close()


@pytest.fixture
def engine(backend: Backend, bundle: Bundle) -> Iterator[Engine]:
    mode = bundle.mode("m0")
    graph = lower(Supernet.of(bundle), mode.groups, bundle.statistics(mode))
    one = backend.load(mode, lambda: backend.build(graph, mode.id))
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
        return OrtBackend().load_bytes(materialize(Supernet.of(bundle), bundle.mode("m0").groups), name="m0")

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

    @pytest.mark.parametrize("seed", range(6))
    def test_what_it_builds_answers_as_the_plain_model(self, seed: int) -> None:
        supernet = make_supernet(seed)
        groups = random_groups(supernet, seed)
        graph = lower(supernet, groups, random_statistics(supernet, groups, seed))
        backend = OrtBackend()
        plain = backend.load_bytes(graph.to_bytes(), name="plain")
        built = backend.load(MODE, lambda: backend.build(graph, "built"))
        for rows in (1, 3):
            wanted, found = (one.infer({"input": images(rows, seed)})["logits"] for one in (plain, built))
            assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
        other = lower(supernet, groups, random_statistics(supernet, groups, seed + 1))
        changed = backend.load(MODE, lambda: backend.build(other, "changed"))
        assert np.abs(changed.infer({"input": images(3, seed)})["logits"] - wanted).max() > 1e-3

    def test_large_numbers_lie_outside_the_model_and_are_all_of_it(self) -> None:
        built = OrtBackend().build(wide(256), "wide")
        assert sum(value.nbytes for value in built.numbers.values()) >= 256 * 256 * 4
        assert all(value.nbytes >= OUTSIDE_BYTES for value in built.numbers.values())
        assert len(built.model) < 10_000
        renamed = {f"{name}!": value for name, value in built.numbers.items()}
        with pytest.raises(EngineError, match="cannot load mode 'm'"):
            OrtBackend().load(MODE, lambda: Artifact(built.model, renamed))

    def test_the_numbers_given_at_loading_are_those_it_computes_with(self) -> None:
        backend = OrtBackend()
        built = backend.build(wide(64), "wide")
        x = {"input": np.ones((1, 64, SIDE, SIDE), np.float32)}
        first = backend.load(MODE, lambda: built).infer(x)["conv"]
        doubled = Artifact(built.model, {name: value * 2 for name, value in built.numbers.items()})
        assert np.allclose(backend.load(MODE, lambda: doubled).infer(x)["conv"], 2 * first, rtol=1e-5)

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what memory is whose")
    def test_loading_copies_no_numbers(self, tmp_path: Path) -> None:
        write_modes(tmp_path, [("m", OrtBackend().build(wide(2048), "wide"))], identity={})  # 16 MiB
        built = ModeStore(tmp_path, identity={}, modes=["m"]).artifact("m")
        x = {"input": np.ones((1, 2048, SIDE, SIDE), np.float32)}
        backend = OrtBackend()
        engines = [backend.load(MODE, lambda: built)]  # the first brings what is the process's
        engines[0].infer(x)
        before = anonymous_mb()
        for _ in range(4):
            engines.append(backend.load(MODE, lambda: built))
            engines[-1].infer(x)
        assert anonymous_mb() - before < 16  # of 64 if each had copied its own

    def test_numbers_outlive_what_they_were_given_in(self, tmp_path: Path) -> None:
        write_modes(tmp_path, [("m", OrtBackend().build(wide(512), "wide"))], identity={})
        x = {"input": np.ones((1, 512, SIDE, SIDE), np.float32)}
        engine = OrtBackend().load(MODE, lambda: ModeStore(tmp_path, identity={}, modes=["m"]).artifact("m"))
        first = engine.infer(x)["conv"]
        for path in tmp_path.iterdir():
            path.unlink()
        gc.collect()
        assert np.array_equal(engine.infer(x)["conv"], first)

    def test_a_network_it_does_not_take_is_named(self) -> None:
        graph = wide(16)
        graph.nodes[0].op_type = "Convolute"
        with pytest.raises(EngineError, match="cannot build mode 'odd'"):
            OrtBackend().build(graph, "odd")

    @pytest.mark.parametrize("model", [b"", b"not a model", b"\x08\x07"])
    def test_a_model_that_does_not_load_is_named(self, model: bytes) -> None:
        with pytest.raises(EngineError, match="cannot load mode 'm0'"):
            OrtBackend().load_bytes(model, name="m0")


class TestSimulated:
    def test_time_is_fixed_part_plus_macs_for_every_row_shared_by_threads(self, bundle: Bundle) -> None:
        slept: List[float] = []
        mode = bundle.mode("m2")
        for threads in (1, 2):
            SimBackend(bundle, threads, sleep=slept.append).load(mode, unbuilt).infer({"input": images(3)})
        wanted_s = 3 * (0.2e-3 + mode.macs / 10e9)
        assert slept == [pytest.approx(wanted_s), pytest.approx(wanted_s / 2)]

    def test_the_model_is_not_built(self, bundle: Bundle) -> None:
        engine = SimBackend(bundle, sleep=lambda seconds: None).load(bundle.mode("m0"), unbuilt)
        assert engine.infer({"input": images(1)})["logits"].sum() == 1


def test_looking_at_the_table_imports_no_engine() -> None:
    code = "import sys, wenet_runtime.engines, wenet_runtime.meters; print('onnxruntime' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=60)
    assert found.stdout.strip() == b"False"
