"""ONNX Runtime's TensorRT provider, on a double of ONNX Runtime: what is asked of it. It has not run for real."""

import dataclasses
import stat
from pathlib import Path
from typing import Any, Dict, Iterator

import numpy as np
import onnxruntime
import pytest

from tests.runtime.ort_doubles import CUDA, TENSORRT, OrtDouble, gpu
from tests.supernets import images
from wenet_runtime.bundle import Bundle
from wenet_runtime.engines.base import Artifact, EngineOptions, builds_quickly, numerics_of
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.engines.ort_tensorrt import OrtTensorrtBackend, digest
from wenet_runtime.errors import EngineError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import Supernet, lower


@pytest.fixture
def lab() -> Iterator[OrtDouble]:
    with gpu(TENSORRT, CUDA) as one:
        yield one


def graph_of(bundle: Bundle, mode_id: str = "m0") -> Graph:
    mode = bundle.mode(mode_id)
    return lower(Supernet.of(bundle), mode.groups, bundle.statistics(mode))


def asked(lab: OrtDouble, bundle: Bundle, precision: str = "fp32", **options: Any) -> Dict[str, str]:
    """Options of TensorRT's provider when a mode is opened."""
    backend = OrtTensorrtBackend(bundle, 1, EngineOptions(**options))
    made = backend.build(graph_of(bundle), "m0")
    backend.load(dataclasses.replace(bundle.mode("m0"), precision=precision), lambda: made)
    (name, found), (second, beside) = lab.sessions[-1].providers
    assert (name, second) == (TENSORRT, CUDA)
    assert beside["enable_cuda_graph"] == "0"
    return found


def test_a_missing_provider_is_named() -> None:
    with gpu(CUDA), pytest.raises(EngineError, match=f"has no {TENSORRT}, only {CUDA}"):
        OrtTensorrtBackend()


def test_a_session_that_only_uses_the_cuda_provider_is_refused(lab: OrtDouble, bundle: Bundle) -> None:
    lab.used = [CUDA, "CPUExecutionProvider"]
    with pytest.raises(EngineError, match=f"with {CUDA}, CPUExecutionProvider and not with {TENSORRT}"):
        asked(lab, bundle)


def test_what_does_not_load_is_not_tried_again_without_graphs_that_it_never_had(lab: OrtDouble, bundle: Bundle) -> None:
    lab.refuse = RuntimeError("no TensorRT")
    with pytest.raises(EngineError, match="no TensorRT"):
        asked(lab, bundle)
    assert len(lab.sessions) == 1


def test_engines_are_built_for_batches_from_one_to_the_bundle_s_largest(lab: OrtDouble, bundle: Bundle) -> None:
    found = asked(lab, bundle)
    assert found["trt_profile_min_shapes"] == found["trt_profile_opt_shapes"] == "input:1x1x8x8"
    assert found["trt_profile_max_shapes"] == f"input:{bundle.manifest.max_batch}x1x8x8"


def test_a_network_that_is_no_mode_gets_no_shapes(lab: OrtDouble, bundle: Bundle) -> None:
    backend = OrtTensorrtBackend(bundle)
    made = backend.build(graph_of(bundle), "tried")
    backend.load(dataclasses.replace(bundle.mode("m0"), id="tried"), lambda: made)
    assert not [name for name in lab.sessions[0].providers[0][1] if "profile" in name]


@pytest.mark.parametrize(
    ("precision", "fp16", "int8", "bf16"),
    [("fp32", "0", "0", None), ("fp16", "1", "0", None), ("int8", "1", "1", None), ("bf16", "0", "0", "1")],
)
def test_precisions_are_tensorrt_s_flags(
    lab: OrtDouble, bundle: Bundle, precision: str, fp16: str, int8: str, bf16: Any
) -> None:
    found = asked(lab, bundle, precision)
    assert (found["trt_fp16_enable"], found["trt_int8_enable"]) == (fp16, int8)
    assert found.get("trt_bf16_enable") == bf16


@pytest.mark.parametrize(
    ("precision", "emitted", "symmetric"),
    [("fp32", "fp32", False), ("fp16", "fp32", False), ("bf16", "fp32", False), ("int8", "int8", True)],
)
def test_only_int8_is_written_into_the_graph(
    lab: OrtDouble, bundle: Bundle, precision: str, emitted: str, symmetric: bool
) -> None:
    del lab
    mode = dataclasses.replace(bundle.mode("m0"), precision=precision)
    numerics = numerics_of(OrtTensorrtBackend(bundle), mode)
    assert (numerics.emitted, numerics.computed, numerics.symmetric) == (emitted, precision, symmetric)


def test_the_graph_is_left_to_tensorrt_and_no_node_to_the_cpu(lab: OrtDouble, bundle: Bundle) -> None:
    asked(lab, bundle)
    options = lab.sessions[0].options
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"


class TestCache:
    def test_it_is_readable_by_its_owner_only(self, lab: OrtDouble, bundle: Bundle, tmp_path: Path) -> None:
        found = asked(lab, bundle, cache=tmp_path)
        for option in ("trt_engine_cache", "trt_timing_cache"):
            assert found[f"{option}_enable"] == "1"
            folder = Path(found[f"{option}_path"])
            assert folder.parent == tmp_path / "ort-tensorrt"
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_without_one_nothing_is_kept(self, lab: OrtDouble, bundle: Bundle) -> None:
        assert not [name for name in asked(lab, bundle) if "cache" in name]

    def test_each_mode_has_a_folder_because_engines_of_the_same_names_are_taken_for_one_another(
        self, lab: OrtDouble, bundle: Bundle, tmp_path: Path
    ) -> None:
        backend = OrtTensorrtBackend(bundle, 1, EngineOptions(cache=tmp_path))
        for mode in (*bundle.modes, *bundle.modes):
            made = backend.build(graph_of(bundle, mode.id), mode.id)
            backend.load(mode, lambda made=made: made)  # type: ignore[misc]
        engines = [one.providers[0][1]["trt_engine_cache_path"] for one in lab.sessions]
        timings = {one.providers[0][1]["trt_timing_cache_path"] for one in lab.sessions}
        assert len(set(engines)) == len(bundle.modes)
        assert engines[: len(engines) // 2] == engines[len(engines) // 2 :]
        assert len(timings) == 1

    def test_modes_that_differ_only_in_numbers_have_folders_of_their_own(self) -> None:
        numbers = {"w": np.arange(512, dtype=np.float16), "order": np.arange(256)}
        made = digest(Artifact(b"model", numbers), "1")
        assert made == digest(Artifact(b"model", dict(reversed(list(numbers.items())))), "1")
        for name, value in numbers.items():
            changed = value.copy()
            changed[-1] += 1
            assert digest(Artifact(b"model", {**numbers, name: changed}), "1") != made
        assert digest(Artifact(b"other", numbers), "1") != made
        assert digest(Artifact(b"model", numbers), "2") != made

    def test_building_a_mode_fills_it(self, lab: OrtDouble, bundle: Bundle, tmp_path: Path) -> None:
        backend = OrtTensorrtBackend(bundle, 1, EngineOptions(cache=tmp_path))
        assert not builds_quickly(backend)
        backend.build(graph_of(bundle), "m0")
        assert len(lab.sessions) == 1
        backend.build(graph_of(bundle), "tried")  # of no mode, for which nothing would be kept
        assert len(lab.sessions) == 1

    def test_a_cache_that_cannot_be_written_is_named(self, lab: OrtDouble, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "ort-tensorrt").write_text("in the way")
        with pytest.raises(EngineError, match=r"cannot use the cache .* choose another --cache-dir"):
            asked(lab, bundle, cache=tmp_path)


def test_batches_are_never_replayed_from_a_graph_of_another_size(lab: OrtDouble, bundle: Bundle) -> None:
    backend = OrtTensorrtBackend(bundle)
    graph = graph_of(bundle)
    plain = OrtBackend().load_bytes(graph.to_bytes(), name="reference")
    made = backend.build(graph, "m0")
    engine = backend.load(bundle.mode("m0"), lambda: made)
    for rows in (1, 1, 1, 2, 2, 2, 1):
        x = {"input": images(rows, rows)}
        assert np.allclose(engine.infer(x)["logits"], plain.infer(x)["logits"], atol=1e-5)
    assert set(lab.sessions[0].runs) == {None}
