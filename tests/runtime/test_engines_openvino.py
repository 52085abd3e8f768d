"""What is OpenVINO's own: precisions, artifacts that are borrowed and not copied, and no message to its maker."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runtime.test_lowering_quantize import residual
from tests.runtime.test_materialize import with_ranges
from tests.supernets import images, make_supernet, random_groups, uniform
from wenet_runtime.bundle import Accuracy, Mode
from wenet_runtime.engines.base import Artifact
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import EngineError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import lower

if importlib.util.find_spec("openvino") is None:
    pytest.skip("OpenVINO is not installed here; it needs Python 3.10", allow_module_level=True)

from wenet_runtime.engines.openvino import OpenVinoBackend, OpenVinoEngine

MODE = Mode("m0", {}, "fp32", Accuracy(0.5, 0.4, 0.6, 10), 1, 1, "test")
BF16 = dataclasses.replace(MODE, precision="bf16")


@pytest.fixture(scope="module")
def backend() -> OpenVinoBackend:
    return OpenVinoBackend()


@pytest.fixture
def engine(backend: OpenVinoBackend) -> OpenVinoEngine:
    supernet = make_supernet()
    return backend.load_bytes(lower(supernet, uniform(supernet, 4)).to_bytes(), name="m0")


def difference(found: Dict[str, NDArray[Any]], wanted: Dict[str, NDArray[Any]]) -> float:
    """The largest difference over the largest value."""
    assert set(found) == set(wanted)
    return max(float(np.abs(found[name] - wanted[name]).max() / np.abs(wanted[name]).max()) for name in wanted)


def by_ort(graph: Graph, inputs: Dict[str, NDArray[Any]]) -> Dict[str, NDArray[Any]]:
    return OrtBackend().load_bytes(graph.to_bytes(), name="wanted").infer(inputs)


def built(backend: OpenVinoBackend, graph: Graph, mode: Mode = MODE) -> OpenVinoEngine:
    return backend.load(mode, lambda: backend.build(graph, mode.id))


class TestPrecisions:
    @pytest.mark.parametrize("seed", range(5))
    def test_fp32_equals_onnx_runtime_also_where_the_processor_has_bf16(
        self, backend: OpenVinoBackend, seed: int
    ) -> None:
        supernet = make_supernet(seed)
        graph = lower(supernet, random_groups(supernet, seed))
        wanted = by_ort(graph, {"input": images(3, seed)})
        for one in (built(backend, graph), backend.load_bytes(graph.to_bytes(), name="m0")):
            assert difference(one.infer({"input": images(3, seed)}), wanted) <= 1e-4

    @pytest.mark.parametrize("groups", [1, 4])
    def test_bf16_differs_a_little(self, backend: OpenVinoBackend, groups: int) -> None:
        if not backend.computes_bf16:
            pytest.skip("this processor has no bf16")
        graph = residual(0, groups)
        x = {"input": np.random.default_rng(0).normal(size=(2, 16, 6, 6)).astype(np.float32)}
        wanted = by_ort(graph, x)
        for one in (built(backend, graph, BF16), backend.load_bytes(graph.to_bytes(), name="m0", precision="bf16")):
            assert 1e-4 < difference(one.infer(x), wanted) < 3e-2

    def test_bf16_without_a_processor_for_it_is_fp32(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(OpenVinoBackend, "computes_bf16", False)
        graph = residual(0, 4)
        x = {"input": np.random.default_rng(0).normal(size=(2, 16, 6, 6)).astype(np.float32)}
        assert difference(built(OpenVinoBackend(), graph, BF16).infer(x), by_ort(graph, x)) <= 1e-5

    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_every_precision_answers_like_fp32_within_its_tolerance(
        self, backend: OpenVinoBackend, precision: str
    ) -> None:
        supernet = make_supernet()
        groups = uniform(supernet, 4)
        statistics = with_ranges(supernet, groups)
        wanted = by_ort(lower(supernet, groups, statistics), {"input": images(4, 0)})
        mode = dataclasses.replace(MODE, precision=precision)
        one = built(backend, lower(supernet, groups, statistics, precision=precision), mode)
        assert difference(one.infer({"input": images(4, 0)}), wanted) <= PRECISIONS[precision]

    def test_numbers_of_another_network_are_seen(self, backend: OpenVinoBackend) -> None:
        wanted = by_ort(lower(make_supernet(1), uniform(make_supernet(1), 4)), {"input": images(3)})
        found = built(backend, lower(make_supernet(0), uniform(make_supernet(0), 4))).infer({"input": images(3)})
        assert difference(found, wanted) > max(PRECISIONS.values())


class TestShuffles:
    """OpenVINO writes a permutation of channels into the weights behind it, the wrong way round."""

    @pytest.mark.parametrize("groups", [1, 4])
    @pytest.mark.parametrize("seed", range(3))
    def test_a_shuffle_before_any_layer_is_computed_right(
        self, backend: OpenVinoBackend, seed: int, groups: int
    ) -> None:
        graph = residual(seed, groups)
        x = {"input": np.random.default_rng(0).normal(size=(2, 16, 6, 6)).astype(np.float32)}
        assert difference(built(backend, graph).infer(x), by_ort(graph, x)) <= 1e-4

    def test_an_unfolded_supernet_is_computed_right(self, backend: OpenVinoBackend) -> None:
        supernet = make_supernet()
        for level in (1, 4):
            graph = lower(supernet, uniform(supernet, level), fold=False)
            wanted = by_ort(graph, {"input": images(3)})
            assert difference(built(backend, graph).infer({"input": images(3)}), wanted) <= 1e-4

    def test_left_alone_it_would_be_computed_wrong(
        self, backend: OpenVinoBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When this fails, OpenVINO has been corrected and `_hide_orders` may go."""
        monkeypatch.setattr("wenet_runtime.engines.openvino._hide_orders", lambda network: None)
        graph = residual(0, 1)
        x = {"input": np.random.default_rng(0).normal(size=(2, 16, 6, 6)).astype(np.float32)}
        assert difference(built(backend, graph).infer(x), by_ort(graph, x)) > 0.1


class TestArtifacts:
    def test_a_read_only_mapped_artifact_is_read_where_it_lies(self, backend: OpenVinoBackend, tmp_path: Path) -> None:
        supernet = make_supernet()
        graph = lower(supernet, uniform(supernet, 4))
        made = backend.build(graph, "m0")
        (number,) = made.numbers.values()
        (tmp_path / "modes.bin").write_bytes(number.tobytes())
        mapped = np.memmap(str(tmp_path / "modes.bin"), np.uint8, mode="r").view(np.ndarray)
        one = backend.load(MODE, lambda: Artifact(made.model, dict.fromkeys(made.numbers, mapped)))
        wanted = by_ort(graph, {"input": images(2)})
        assert difference(one.infer({"input": images(2)}), wanted) <= 1e-4
        one.close()
        assert np.array_equal(mapped, number)

    def test_what_another_version_or_engine_built_is_refused(self, backend: OpenVinoBackend) -> None:
        supernet = make_supernet()
        graph = lower(supernet, uniform(supernet, 4))
        made = backend.build(graph, "m0")
        others: List[Artifact] = [Artifact(b"2020.1", made.numbers), Artifact(made.model, {}), Artifact(b"", {})]
        for other in others:
            with pytest.raises(EngineError, match="mode 'm0' was not built by OpenVINO"):
                backend.load(MODE, lambda other=other: other)  # type: ignore[misc]

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
    def test_a_part_of_an_artifact_is_an_engine_error(self, backend: OpenVinoBackend, share: float) -> None:
        supernet = make_supernet()
        made = backend.build(lower(supernet, uniform(supernet, 4)), "m0")
        parts = {name: value[: int(value.size * share)] for name, value in made.numbers.items()}
        with pytest.raises(EngineError, match="cannot load mode 'm0'"):
            backend.load(MODE, lambda: Artifact(made.model, parts))

    def test_threads_are_given_when_a_mode_is_loaded(self, backend: OpenVinoBackend) -> None:
        supernet = make_supernet()
        graph = lower(supernet, uniform(supernet, 4))
        made = backend.build(graph, "m0")
        wanted = by_ort(graph, {"input": images(2)})
        for threads in (None, 1, 2):
            one = backend.load(MODE, lambda: made, threads=threads)
            assert difference(one.infer({"input": images(2)}), wanted) <= 1e-4

    def test_a_network_it_does_not_take_is_an_engine_error(self, backend: OpenVinoBackend) -> None:
        graph = residual(0, 4)
        graph.node("add").op_type = "NoSuchOperator"
        with pytest.raises(EngineError, match="cannot build mode 'm7'") as caught:
            backend.build(graph, "m7")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"input": np.zeros((1, 1, 8, 8), np.float64)}, "float64"),
        ({"input": np.zeros((1, 1, 9, 9), np.float32)}, r"\(1, 1, 9, 9\)"),
        ({"input": np.zeros((1, 1, 1, 1), np.float32)}, r"\(1, 1, 1, 1\)"),
        ({"input": np.zeros(8, np.float32)}, r"\(8,\)"),
        ({"input": np.zeros((0, 1, 8, 8), np.float32)}, r"\[0\] rows"),
        ({"other": images(1)}, "other"),
        ({"input": images(1), "other": images(1)}, "other"),
        ({}, "the mode reads"),
    ],
)
def test_inputs_that_do_not_fit_are_an_engine_error_and_the_engine_goes_on(
    engine: OpenVinoEngine, inputs: Dict[str, Any], said: str
) -> None:
    with pytest.raises(EngineError, match=f"OpenVINO failed: .*{said}"):
        engine.infer(inputs)
    assert engine.infer({"input": images(1)})["logits"].shape == (1, 10)


def test_inputs_may_be_read_only_and_in_any_layout(engine: OpenVinoEngine) -> None:
    x = np.asfortranarray(images(3))
    x.setflags(write=False)
    assert np.array_equal(engine.infer({"input": x})["logits"], engine.infer({"input": images(3)})["logits"])


@pytest.mark.parametrize("model", [b"", b"not a model", b"\x08\x07"])
def test_a_model_that_does_not_load_is_named_in_one_line(backend: OpenVinoBackend, model: bytes) -> None:
    with pytest.raises(EngineError, match="cannot load mode 'm0'") as caught:
        backend.load_bytes(model, name="m0")
    assert "\n" not in str(caught.value)


def test_importing_it_loads_no_telemetry_and_writes_nothing_at_home(tmp_path: Path) -> None:
    code = (
        "import sys, wenet_runtime.engines.openvino as o\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')], o.OpenVinoBackend().name)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
        env={**environment, "HOME": str(tmp_path)},  # where it finds that it tests itself, it reports nothing anyway
    )
    assert done.stdout.decode().split() == ["[]", "openvino"]
    assert list(tmp_path.iterdir()) == []
