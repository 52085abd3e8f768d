"""TensorRT modes are built on their device once, for it alone, in the precisions that it is quick at."""

import dataclasses
import json
import sys
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import numpy as np
import onnx
import pytest

from tests.doubles.board import DISCRETE, NANO, ORIN_NANO, Board
from tests.doubles.install import install
from tests.doubles.tensorrt_double.builder import Builder as DoubleBuilder
from tests.runtime.test_materialize import with_ranges
from tests.runtime.trt_rig import VERSIONS, Rig, near, replaced, rigged
from tests.supernets import images
from wenet_runtime.board import Board as System
from wenet_runtime.builder import DeviceCache
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.canary import WARMUP_RUNS
from wenet_runtime.device import this_device
from wenet_runtime.device_graph import lowered
from wenet_runtime.engines import trt
from wenet_runtime.engines.base import Artifact, EngineOptions, Numerics
from wenet_runtime.engines.trt import TrtBackend
from wenet_runtime.engines.trt_engine import TrtEngine
from wenet_runtime.engines.trt_files import PLAN, Header
from wenet_runtime.errors import EngineError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import Supernet
from wenet_runtime.service.daemon import open_daemon
from wenet_runtime.settings import Settings

NEW, OLD = "10.3.0", "8.2.1"
SLOW = dataclasses.replace(DISCRETE, fast_fp16=False, fast_int8=False)


@pytest.fixture(autouse=True)
def no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever these tests run, it is no Jetson to them."""
    monkeypatch.setattr(trt, "read_board", System)


@pytest.fixture(params=VERSIONS)
def rig(request: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Rig]:
    with rigged(monkeypatch, bundle, request.param, cache=tmp_path) as one:
        yield one


def int8_mode(bundle: Bundle) -> Mode:
    return dataclasses.replace(bundle.mode("m0"), precision="int8")


def int8_graph(bundle: Bundle, backend: Any) -> Graph:
    mode, supernet = int8_mode(bundle), Supernet.of(bundle)
    return lowered(backend, supernet, mode, with_ranges(supernet, mode.groups), {})


class TestOpening:
    @pytest.mark.parametrize(("l4t", "told"), [("32.7.1", " L4T 32.7.1"), (None, "")])
    def test_its_version_says_all_that_an_engine_depends_on(
        self, l4t: Optional[str], told: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trt, "read_board", lambda: System(l4t=l4t))
        with rigged(monkeypatch, bundle) as rig:
            assert rig.backend.name == "trt"
            assert rig.backend.version == f"{rig.double.tensorrt.__version__} NVIDIA Tegra X1 sm_53{told}"
        with rigged(monkeypatch, bundle, fp32_layers=["classifier", "b.*"]) as rig:
            assert rig.backend.version.endswith(f"sm_53{told} fp32 in classifier,b.*")

    @pytest.mark.parametrize("cuda", ["pycuda", "cuda-python"])
    def test_without_a_gpu_it_says_so_before_tensorrt_is_imported(
        self, cuda: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(monkeypatch, OLD, board=None, cuda=cuda)
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        with pytest.raises(EngineError, match="cannot use the GPU"):
            TrtBackend(bundle)

    def test_without_tensorrt_it_says_where_that_comes_from(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        double = install(monkeypatch, OLD, cuda="cuda-python")  # whose stream nobody else gives back
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        with pytest.raises(EngineError, match=r"TensorRT's Python module is missing .*comes with JetPack"):
            TrtBackend(bundle)
        double.assert_all_freed()

    @pytest.mark.parametrize("version", ["8.0.1.6", "7.1.3", "11.0", "11.4.0.106"])
    def test_a_version_that_it_does_not_run_on_is_refused(
        self, version: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        double = install(monkeypatch, OLD, cuda="cuda-python")  # whose stream nobody else gives back
        monkeypatch.setattr(double.tensorrt, "__version__", version)
        with pytest.raises(EngineError, match=rf"TensorRT {version} is installed.* 8\.2 to 10\.x"):
            TrtBackend(bundle)
        double.assert_all_freed()

    @pytest.mark.parametrize("version", ["8.2.1.8", "8.2.0", "10.13.3.9", "10.99"])
    def test_the_versions_between_are_taken(
        self, version: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        double = install(monkeypatch, OLD)
        monkeypatch.setattr(double.tensorrt, "__version__", version)
        TrtBackend(bundle).close()
        double.assert_all_freed()

    def test_closing_twice_is_harmless_and_closes_what_was_left_open(self, rig: Rig) -> None:
        engine = rig.engine()
        engine.infer({"input": images(3)})
        rig.backend.close()
        rig.backend.close()
        rig.double.assert_all_freed()
        with pytest.raises(EngineError, match="closed"):
            engine.infer({"input": images(1)})


def test_tensorrt_hears_of_one_logger_however_many_backends_there_are(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, OLD)
    first, second = TrtBackend(bundle), TrtBackend(bundle)
    assert first._logger is second._logger
    first.close()
    second.close()


class TestNumerics:
    @pytest.mark.parametrize(
        ("board", "precision", "wanted"),
        [
            (NANO, "fp32", Numerics("fp32", "fp16")),
            (NANO, "fp16", Numerics("fp32", "fp16")),
            (NANO, "bf16", Numerics("fp32", "fp16")),
            (NANO, "int8", Numerics("fp32", "fp16")),
            (ORIN_NANO, "int8", Numerics("int8", "int8", symmetric=True)),
            (ORIN_NANO, "fp32", Numerics("fp32", "fp16")),
            (SLOW, "fp16", Numerics("fp32", "fp32")),
            (SLOW, "int8", Numerics("fp32", "fp32")),
        ],
    )
    def test_modes_are_computed_in_what_the_gpu_is_quick_at(
        self, board: Board, precision: str, wanted: Numerics, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with rigged(monkeypatch, bundle, board=board) as rig:
            assert rig.backend.numerics(dataclasses.replace(bundle.mode("m0"), precision=precision)) == wanted

    def test_all_layers_in_fp32_leave_nothing_else(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        with rigged(monkeypatch, bundle, NEW, board=ORIN_NANO, fp32_layers=["*"]) as rig:
            assert rig.backend.numerics(int8_mode(bundle)) == Numerics("fp32", "fp32")
            rig.artifact()
            assert rig.plans[0].flags == ()

    def test_what_the_platform_can_is_asked_once_and_kept(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A builder takes memory that a small board needs for serving."""
        for made in (1, 0):
            count: List[int] = []
            with rigged(monkeypatch, bundle, cache=tmp_path) as rig:
                builder = rig.double.tensorrt.Builder
                start = vars(builder)["__init__"]
                with replaced(builder, __init__=lambda *args: (count.append(1), start(*args))[1]):  # noqa: B023
                    assert [rig.backend.numerics(bundle.mode("m0")).computed for _ in range(3)] == ["fp16"] * 3
            assert sum(count) == made

    def test_another_device_s_answer_is_not_taken(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for board, wanted in ((ORIN_NANO, "int8"), (NANO, "fp16"), (ORIN_NANO, "int8")):
            with rigged(monkeypatch, bundle, board=board, cache=tmp_path) as rig:
                assert rig.backend.numerics(int8_mode(bundle)).computed == wanted

    def test_a_library_without_a_builder_says_so(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Any, logger: Any) -> None:
            self._library.error(logger, "no builder resource")
            raise TypeError("pybind11::init(): factory function returned nullptr")

        with rigged(monkeypatch, bundle) as rig, replaced(rig.double.tensorrt.Builder, __init__=refuse):
            with pytest.raises(EngineError, match=r"no builder here: pybind11.*: no builder resource"):
                rig.backend.numerics(bundle.mode("m0"))


class TestBuilding:
    def test_int8_is_asked_for_only_where_the_network_is_in_int8(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with rigged(monkeypatch, bundle, NEW, board=ORIN_NANO) as rig:
            rig.artifact()
            artifact = rig.backend.build(int8_graph(bundle, rig.backend), "m0")
            assert [plan.flags for plan in rig.plans] == [("FP16",), ("FP16", "INT8")]
            engine = rig.backend.load(int8_mode(bundle), lambda: artifact)
            assert near(engine.infer({"input": images(2)})["logits"], rig.answers(images(2)), 0.2)

    def test_on_a_nano_an_int8_mode_is_built_in_float(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        with rigged(monkeypatch, bundle, OLD) as rig:
            graph = int8_graph(bundle, rig.backend)
            kinds = {node.op_type for node in onnx.load_model_from_string(graph.to_bytes()).graph.node}
            assert not kinds & {"QuantizeLinear", "DequantizeLinear"}
            rig.backend.build(graph, "m0")
            assert rig.plans[0].flags == ("FP16",)

    def test_on_a_gpu_that_is_slow_at_fp16_nothing_is_asked_for(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with rigged(monkeypatch, bundle, OLD, board=SLOW) as rig:
            engine = rig.engine()
            assert rig.plans[0].flags == ()  # and no TF32, which is on unless it is cleared
            assert near(engine.infer({"input": images(2)})["logits"], rig.answers(images(2)), 1e-5)

    def test_there_is_a_profile_for_one_row_and_one_for_batches(self, rig: Rig) -> None:
        rig.artifact()
        rows = [[shape[0] for shape in profile["input"]] for profile in rig.plans[0].profiles]
        assert rows == [[1, 1, 1], [1, 8, 8]]
        assert rig.double.built[0]["workspace_bytes"] == trt.WORKSPACE_BYTES

    @pytest.mark.parametrize(("most", "wanted"), [(1, [[1, 1, 1]]), (4, [[1, 1, 1], [1, 4, 4]])])
    def test_a_bundle_s_largest_batch_bounds_the_profiles(
        self, most: int, wanted: List[List[int]], bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manifest = dataclasses.replace(bundle.manifest, max_batch=most)
        with monkeypatch.context() as patch:
            patch.setattr(bundle, "manifest", manifest, raising=False)
            with rigged(monkeypatch, bundle) as rig:
                engine = rig.engine()
                rows = [[shape[0] for shape in profile["input"]] for profile in rig.plans[0].profiles]
                assert rows == wanted
                assert near(engine.infer({"input": images(6)})["logits"], rig.answers(images(6)))

    def test_what_the_parser_does_not_take_is_told_in_its_words(self, rig: Rig) -> None:
        graph = rig.graph()
        graph.node("pool").op_type = "GlobalLpPool"
        with pytest.raises(EngineError, match=r"cannot build mode 'm0': its parser .*GlobalLpPool"):
            rig.backend.build(graph, "m0")

    def test_a_build_that_finds_nothing_is_told_in_the_logger_s_words(self, rig: Rig) -> None:
        def fail(self: Any, network: Any, config: Any) -> None:
            self._library.error(self._logger, "10: Could not find any implementation for node conv")

        with replaced(rig.double.tensorrt.Builder, build_serialized_network=fail):
            with pytest.raises(EngineError, match=r"mode 'm0': its builder finds no engine: 10: Could not find any"):
                rig.artifact()
        assert rig.backend._journal.read(Header.from_bytes(rig.artifact().model).key + PLAN) is not None

    def test_what_was_timed_once_is_known_to_the_next_build(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        known: List[int] = []

        def build(self: Any, network: Any, config: Any) -> Any:
            known.append(len(config._cache._entries))
            return DoubleBuilder.build_serialized_network(self, network, config)

        for mode_id in ("m0", "m2"):
            with rigged(monkeypatch, bundle, NEW, cache=tmp_path) as rig:
                with replaced(rig.double.tensorrt.Builder, build_serialized_network=build):
                    rig.artifact(mode_id)
        assert known[0] == 0 < known[1]

    @pytest.mark.parametrize("damage", ["the file", "what it holds", "another device's"])
    def test_timings_that_cannot_be_used_are_made_again(
        self, damage: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with rigged(monkeypatch, bundle, NEW, cache=tmp_path) as rig:
            rig.artifact("m0")
            journal, (path,) = rig.backend._journal, (tmp_path / "trt").glob("*.timing")
            if damage == "the file":
                path.write_bytes(path.read_bytes()[:-1])
            elif damage == "what it holds":
                journal.write(path.name, b"nothing that a builder knows")
            else:
                journal.write(path.name, json.dumps({"double of a timing cache": ["1", "x"], "entries": []}).encode())
            if damage == "the file":
                with pytest.warns(UserWarning, match="timing cannot be used"):
                    rig.artifact("m2")
            else:
                rig.artifact("m2")
            kept = journal.read(path.name)
            assert kept is not None
            assert b"classifier" in kept.tobytes()

    def test_without_a_cache_nothing_is_kept_and_all_works(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with rigged(monkeypatch, bundle) as rig:
            for _ in range(2):
                rig.artifact()
            assert len(rig.plans) == 2


class TestLayersInFp32:
    @pytest.mark.parametrize(
        ("patterns", "wanted"),
        [
            (["classifier"], {"classifier"}),
            (
                ["b.*", "stem"],
                {"stem", "b.conv1", "b.conv2", "b.conv3", "b.down", "b.add", "b.relu1", "b.relu2", "b.relu3"},
            ),
            (["*conv?"], {"b.conv1", "b.conv2", "b.conv3"}),
        ],
    )
    @pytest.mark.parametrize("version", VERSIONS)
    def test_patterns_reach_the_layers_that_compute(
        self, version: str, patterns: List[str], wanted: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with rigged(monkeypatch, bundle, version, fp32_layers=patterns) as rig:
            engine = rig.engine()
            assert rig.double.built[0]["pinned"] == dict.fromkeys(wanted, "FLOAT")
            assert rig.plans[0].flags == ("FP16", "OBEY_PRECISION_CONSTRAINTS")
            assert near(engine.infer({"input": images(2)})["logits"], rig.answers(images(2)))

    def test_a_layer_goes_by_the_bundle_s_name_too(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        layers = tuple(dataclasses.replace(one, name=f"layers/{one.name}") for one in bundle.manifest.layers)
        manifest = dataclasses.replace(bundle.manifest, layers=layers)
        graph: List[Graph] = []
        with rigged(monkeypatch, bundle) as rig:
            graph.append(rig.graph())
        with monkeypatch.context() as patch:
            patch.setattr(bundle, "manifest", manifest, raising=False)
            with rigged(monkeypatch, bundle, fp32_layers=["layers/b.conv1"]) as rig:
                rig.backend.build(graph[0], "m0")
                assert rig.double.built[0]["pinned"] == {"b.conv1": "FLOAT"}

    @pytest.mark.parametrize("pattern", ["b.conv1", "layers/b.conv1"])
    def test_in_an_int8_mode_they_read_what_was_not_rounded(
        self, pattern: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        layers = tuple(dataclasses.replace(one, name=f"layers/{one.name}") for one in bundle.manifest.layers)
        manifest = dataclasses.replace(bundle.manifest, layers=layers)
        with monkeypatch.context() as patch:
            patch.setattr(bundle, "manifest", manifest, raising=False)
            with rigged(monkeypatch, bundle, NEW, board=ORIN_NANO, fp32_layers=[pattern]) as rig:
                numerics = rig.backend.numerics(int8_mode(bundle))
        with rigged(monkeypatch, bundle, NEW, board=ORIN_NANO) as rig:
            monkeypatch.setattr(rig.backend, "numerics", lambda mode: numerics)
            graph = int8_graph(bundle, rig.backend)
        rounded = {
            node.name: node.input[0].endswith(".rounded") for node in graph.nodes if node.op_type in ("Conv", "Gemm")
        }
        assert [name for name, is_rounded in rounded.items() if not is_rounded] == ["b.conv1"]

    def test_a_pattern_that_names_no_layer_is_refused_with_those_there_are(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with rigged(monkeypatch, bundle, fp32_layers=["stem", "b.shuffle", "no.such"]) as rig:
            with pytest.raises(EngineError, match=r"--fp32-layers names 'b\.shuffle'.*there are stem, .* …"):
                rig.artifact()


class TestJournal:
    def test_what_was_built_is_not_built_again_by_the_next_process(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        kept: List[Artifact] = []
        for builds in (1, 0):
            with rigged(monkeypatch, bundle, cache=tmp_path) as rig:
                kept.append(rig.artifact())
                assert len(rig.plans) == builds
                engine = rig.backend.load(bundle.mode("m0"), lambda: kept[-1])
                assert near(engine.infer({"input": images(2)})["logits"], rig.answers(images(2)))
        assert kept[0].model == kept[1].model

    @pytest.mark.parametrize("changed", ["version", "board", "fp32_layers", "mode", "l4t"])
    def test_something_else_is_built_again(
        self, changed: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with rigged(monkeypatch, bundle, OLD, cache=tmp_path) as rig:
            rig.artifact()
        more: Dict[str, Any] = {
            "board": {"board": dataclasses.replace(NANO, name="another")},
            "fp32_layers": {"fp32_layers": ["stem"]},
        }.get(changed, {})
        if changed == "l4t":
            monkeypatch.setattr(trt, "read_board", lambda: System(l4t="32.7.2"))
        version = "8.5.2" if changed == "version" else OLD
        with rigged(monkeypatch, bundle, version, cache=tmp_path, **more) as rig:
            rig.artifact("m1" if changed == "mode" else "m0")
            assert len(rig.plans) == 1

    def test_a_damaged_engine_is_built_again(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with rigged(monkeypatch, bundle, cache=tmp_path) as rig:
            before = rig.artifact()
            (path,) = (tmp_path / "trt").glob("*.plan")
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
            with pytest.warns(UserWarning, match="made again"):
                after = rig.artifact()
            assert len(rig.plans) == 2
            assert np.array_equal(before.numbers["engine"], after.numbers["engine"])

    def test_a_build_that_was_killed_goes_on_where_it_was(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def cache_of(rig: Rig) -> DeviceCache:
            device = this_device("trt", rig.backend.version, 1)
            return DeviceCache(tmp_path, bundle, device, rig.backend)

        with rigged(monkeypatch, bundle, cache=tmp_path) as rig:
            build = TrtBackend.build

            def killed(self: TrtBackend, graph: Graph, name: str) -> Artifact:
                if name == "m0":
                    raise KeyboardInterrupt
                return build(self, graph, name)

            with monkeypatch.context() as patch:
                patch.setattr(TrtBackend, "build", killed)
                with pytest.raises(KeyboardInterrupt):
                    cache_of(rig).build()
            assert len(rig.plans) == 2
        with rigged(monkeypatch, bundle, cache=tmp_path) as rig:
            cache_of(rig).build()
            assert len(rig.plans) == 1
            cache_of(rig).build()
            assert len(rig.plans) == 1


class TestLoading:
    @pytest.mark.parametrize(
        "changed",
        [{"tensorrt": "8.2.1.9"}, {"gpu": "another"}, {"compute_capability": "6.2"}, {"l4t": "32.7.6"}],
        ids=lambda changed: next(iter(changed)),
    )
    def test_an_engine_of_another_device_is_refused(
        self, changed: Dict[str, str], bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with rigged(monkeypatch, bundle) as rig:
            artifact = rig.artifact()
            header = Header.from_bytes(artifact.model)
            foreign = dataclasses.replace(header, origin=dataclasses.replace(header.origin, **changed))
            with pytest.raises(EngineError, match=r"mode 'm0' was built by TensorRT for .*: delete its cache"):
                rig.backend.load(bundle.mode("m0"), lambda: Artifact(foreign.to_bytes(), artifact.numbers))

    @pytest.mark.parametrize("model", [b"", b"{}", b"1.19.2", b"\x08\x07"])
    def test_another_engine_s_artifact_is_refused(
        self, model: bytes, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with rigged(monkeypatch, bundle) as rig:
            artifact = rig.artifact()
            with pytest.raises(EngineError, match="was not built by TensorRT"):
                rig.backend.load(bundle.mode("m0"), lambda: Artifact(model, artifact.numbers))
            with pytest.raises(EngineError, match="holds no engine"):
                rig.backend.load(bundle.mode("m0"), lambda: Artifact(artifact.model, {}))

    def test_an_engine_that_tensorrt_does_not_take_is_told_in_its_words(self, rig: Rig) -> None:
        artifact = rig.artifact()
        cut = {"engine": artifact.numbers["engine"][:-10]}
        with pytest.raises(EngineError, match=r"cannot load mode 'm0': it does not take .*: Serialization Error"):
            rig.backend.load(rig.bundle.mode("m0"), lambda: Artifact(artifact.model, cut))

    def test_a_context_that_cannot_be_made_is_an_error(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        for version, name in (
            (OLD, "create_execution_context_without_device_memory"),
            (NEW, "create_execution_context"),
        ):
            with rigged(monkeypatch, bundle, version) as rig:
                with replaced(rig.double.tensorrt.ICudaEngine, **{name: lambda self, *args: None}):
                    with pytest.raises(EngineError, match="mode 'm0': TensorRT makes no execution context"):
                        rig.engine()

    def test_a_mode_may_be_loaded_while_another_runs(self, rig: Rig) -> None:
        first = rig.engine("m0")
        wanted, failures, done = rig.answers(images(3)), [], threading.Event()

        def run() -> None:
            while not done.is_set():
                if not near(first.infer({"input": images(3)})["logits"], wanted):
                    failures.append("it answers otherwise")

        thread = threading.Thread(target=run)
        thread.start()
        try:
            for mode_id in ("m1", "m2"):
                engine = rig.engine(mode_id)
                assert near(engine.infer({"input": images(3)})["logits"], rig.answers(images(3), mode_id))
                engine.close()
        finally:
            done.set()
            thread.join()
        assert failures == []


class TestTheWholeStack:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_a_daemon_answers_as_the_bundle_s_golden_outputs(
        self, version: str, bundle_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        runs: List[int] = []
        infer = TrtEngine.infer
        monkeypatch.setattr(TrtEngine, "infer", lambda self, inputs: (runs.append(id(self)), infer(self, inputs))[1])
        settings = Settings(bundle=bundle_path, cache_dir=tmp_path, profile_rounds=10, engine="trt")
        for start in ("cold", "warm"):
            double = install(monkeypatch, version)
            daemon = open_daemon(settings)
            try:
                assert bool(double.built) == (start == "cold")
                assert daemon.runtime.pool.computed("m0") == "fp16"
                counts = {one: runs.count(one) for one in set(runs)}
                assert all(count >= WARMUP_RUNS for count in counts.values())
                for rows in (1, 2):
                    golden = bundle.golden()
                    inputs = {"input": np.ascontiguousarray(golden["input.input"][:rows])}
                    for mode in bundle.modes:
                        with daemon.runtime.pool.use(mode.id) as engine:
                            assert near(engine.infer(inputs)["logits"], golden[f"{mode.id}.logits"][:rows])
            finally:
                daemon.runtime.close()
            double.assert_all_freed()
            runs.clear()

    def test_whole_networks_are_measured_and_what_was_measured_is_not_built_again(
        self, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        double = install(monkeypatch, OLD)
        untuned = Settings(bundle=bundle_path, cache_dir=tmp_path / "a", profile_rounds=10, engine="trt", tune=False)
        open_daemon(untuned).runtime.close()
        assert len(double.built) == 3
        double = install(monkeypatch, OLD)
        tuned = untuned.model_copy(update={"tune": True, "cache_dir": tmp_path / "b"})
        open_daemon(tuned).runtime.close()
        keys = [path.name for path in (tmp_path / "b" / "trt").glob("*.plan")]
        assert len(double.built) == len(keys)
        assert 3 < len(keys) <= 9
        double.assert_all_freed()

    def test_the_engine_s_options_reach_it(
        self, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        double = install(monkeypatch, NEW)
        settings = Settings(
            bundle=bundle_path,
            cache_dir=tmp_path,
            profile_rounds=10,
            engine="trt",
            fp32_layers=["classifier"],
            tune=False,
        )
        open_daemon(settings).runtime.close()
        assert all(one["pinned"] == {"classifier": "FLOAT"} for one in double.built)
        assert len(double.built) == 3


def test_a_backend_without_options_keeps_nothing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, OLD)
    backend = TrtBackend(bundle, 1, EngineOptions())
    assert backend.version.endswith("sm_53")
    backend.close()
