"""ONNX Runtime's CUDA provider, on a double of ONNX Runtime: what is asked of it, and what is made of its refusals.

Whether a GPU answers so is not tested here: see `benchmarks.gpu_modes`.
"""

import dataclasses
import logging
import threading
from typing import Any, Iterator

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.runtime.ort_doubles import CUDA, OrtDouble, gpu
from tests.supernets import images, make_supernet, random_groups, uniform
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.canary import Canary
from wenet_runtime.engines.base import Artifact, builds_quickly, numerics_of
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.engines.ort_binding import MOST_CAPTURES, BoundEngine
from wenet_runtime.engines.ort_cuda import OrtCudaBackend
from wenet_runtime.errors import EngineError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.manifest import PRECISIONS, Accuracy
from wenet_runtime.materialize import Supernet, lower

MODE = Mode("m", {}, "fp32", Accuracy(0.5, 0.4, 0.6, 10), 1, 1, "test")
PATIENCE_S = 60.0


class OnTheCpu(OrtCudaBackend):
    """A double of the backend that is real but for where it computes."""

    provider = "CPUExecutionProvider"
    device = "cpu"
    graphs = False

    def _session_options(self, threads: int) -> Any:
        options = super()._session_options(threads)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
        return options

    def _providers(self, made: Artifact, mode: Mode, graphs: bool) -> Any:
        del made, mode, graphs
        return [self.provider]


@pytest.fixture
def lab() -> Iterator[OrtDouble]:
    with gpu(CUDA) as one:
        yield one


def graph_of(seed: int = 0) -> Graph:
    supernet = make_supernet(seed)
    return lower(supernet, random_groups(supernet, seed))


def loaded(backend: OrtCudaBackend, graph: Graph, mode: Mode = MODE) -> BoundEngine:
    made = backend.build(graph, mode.id)
    return backend.load(mode, lambda: made)


def answers(engine: Any, x: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = engine.infer({"input": x})["logits"]
    return found


class TestWithoutAGpu:
    def test_a_missing_provider_is_named_with_what_is_there_and_what_to_install(self) -> None:
        if CUDA in onnxruntime.get_available_providers():
            pytest.skip("this ONNX Runtime has the provider")
        with pytest.raises(EngineError) as caught:
            OrtCudaBackend()
        for part in (f"has no {CUDA}", "CPUExecutionProvider", "pip install onnxruntime-gpu", "side by side"):
            assert part in str(caught.value)

    @pytest.mark.parametrize("version", ["1.16.3", "1.17.1"])
    def test_a_version_without_a_graph_for_each_batch_size_is_refused(self, version: str) -> None:
        with gpu(CUDA, version=version), pytest.raises(EngineError, match=rf"{version} is too old.*1\.18"):
            OrtCudaBackend()

    @pytest.mark.parametrize("version", ["1.18.0", "1.31.1", "2.0.0"])
    def test_newer_ones_are_taken(self, version: str) -> None:
        with gpu(CUDA, version=version):
            OrtCudaBackend()


class TestWhatIsAsked:
    def test_the_gpu_s_provider_and_no_other(self, lab: OrtDouble) -> None:
        loaded(OrtCudaBackend(), graph_of())
        (session,) = lab.sessions
        assert session.providers == [
            (
                CUDA,
                {
                    "device_id": "0",
                    "arena_extend_strategy": "kSameAsRequested",
                    "cudnn_conv_algo_search": "EXHAUSTIVE",
                    "use_tf32": "0",
                    "enable_cuda_graph": "1",
                },
            )
        ]
        assert session.options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        assert session.enable_fallback == 0

    def test_no_arena_is_shared_among_sessions(self, lab: OrtDouble) -> None:
        loaded(OrtCudaBackend(), graph_of())
        with pytest.raises(RuntimeError, match="use_env_allocators"):
            lab.sessions[0].options.get_session_config_entry("session.use_env_allocators")

    def test_a_graph_is_optimised_when_it_is_opened(self, lab: OrtDouble) -> None:
        loaded(OrtCudaBackend(), graph_of())
        level = lab.sessions[0].options.graph_optimization_level
        assert level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

    def test_threads_are_the_mode_s_or_the_backend_s(self, lab: OrtDouble) -> None:
        backend = OrtCudaBackend(threads=3)
        made = backend.build(graph_of(), "m")
        for threads in (None, 2):
            backend.load(MODE, lambda: made, threads=threads)
        assert [one.options.intra_op_num_threads for one in lab.sessions] == [3, 2]

    def test_building_is_quick_and_keeps_the_graph_plain(self, lab: OrtDouble) -> None:
        backend = OrtCudaBackend()
        assert builds_quickly(backend)
        made = backend.build(graph_of(), "m")
        assert lab.sessions == []
        assert b"com.microsoft" not in made.model  # what ONNX Runtime writes for one processor

    @pytest.mark.parametrize(
        ("precision", "emitted"), [("fp32", "fp32"), ("fp16", "fp16"), ("bf16", "bf16"), ("int8", "fp16")]
    )
    def test_int8_is_written_in_fp16_and_held_to_what_int8_may_differ(
        self, lab: OrtDouble, precision: str, emitted: str
    ) -> None:
        del lab
        numerics = numerics_of(OrtCudaBackend(), dataclasses.replace(MODE, precision=precision))
        assert (numerics.emitted, numerics.computed, numerics.symmetric) == (emitted, precision, False)


class TestRefusals:
    def test_a_session_that_does_not_use_the_gpu_is_refused(self, lab: OrtDouble) -> None:
        lab.used = ["CPUExecutionProvider"]
        with pytest.raises(EngineError, match=f"mode 'm' with CPUExecutionProvider and not with {CUDA}"):
            loaded(OrtCudaBackend(), graph_of())

    def test_a_session_that_prefers_another_provider_is_refused(self, lab: OrtDouble) -> None:
        lab.used = ["CPUExecutionProvider", CUDA]
        with pytest.raises(EngineError, match="not with"):
            loaded(OrtCudaBackend(), graph_of())

    def test_what_does_not_load_is_named_by_its_first_reason_in_a_line(self, lab: OrtDouble) -> None:
        lab.refuse = RuntimeError("Conflicting session configuration")
        lab.refuse.__cause__ = RuntimeError("nodes are assigned\nto the CPU")
        with pytest.raises(EngineError, match=r"cannot load mode 'm' on the GPU: nodes are assigned to the CPU$"):
            loaded(OrtCudaBackend(), graph_of())

    def test_a_mode_that_cannot_be_captured_runs_without_graphs_and_says_so(
        self, lab: OrtDouble, caplog: pytest.LogCaptureFixture
    ) -> None:
        lab.refuse_graphs = True
        with caplog.at_level(logging.WARNING):
            engine = loaded(OrtCudaBackend(), graph_of())
        assert "mode 'm' runs without CUDA graphs" in caplog.text
        assert "partitioned" in caplog.text
        for _ in range(3):
            answers(engine, images(2))
        assert [one.graphs for one in lab.sessions] == [True, False]
        assert lab.sessions[1].runs == [None] * 3

    @pytest.mark.parametrize("model", [b"", b"not a model", b"\x08\x07"])
    def test_a_model_that_does_not_load_is_an_engine_error(self, lab: OrtDouble, model: bytes) -> None:
        del lab
        with pytest.raises(EngineError, match="cannot load mode 'm'"):
            OrtCudaBackend().load(MODE, lambda: Artifact(model, {}))


class TestGraphs:
    def test_a_batch_size_runs_plainly_then_captures_then_replays(self, lab: OrtDouble) -> None:
        engine = loaded(OrtCudaBackend(), graph_of())
        for rows in (1, 1, 1, 2, 2, 2, 1):
            answers(engine, images(rows))
        assert lab.sessions[0].runs == ["-1", "1", "1", "-1", "2", "2", "1"]

    @pytest.mark.parametrize("seed", range(5))
    def test_answers_are_those_of_the_cpu_engine_whatever_is_replayed(self, lab: OrtDouble, seed: int) -> None:
        del lab
        graph = graph_of(seed)
        engine = loaded(OrtCudaBackend(), graph)
        random = np.random.default_rng(seed)
        wanted = reference(graph)
        for turn in range(40):
            x = images(int(random.integers(1, 12)), 1000 * seed + turn)  # more sizes than are kept
            assert np.allclose(answers(engine, x), wanted(x), atol=1e-5)

    def test_a_graph_s_id_is_never_used_again(self, lab: OrtDouble) -> None:
        """A graph stays in its session with the addresses of buffers that have gone."""
        engine = loaded(OrtCudaBackend(), graph_of())
        for turn in range(3):
            for rows in range(1, 11):  # more than are kept
                for _ in range(2):
                    answers(engine, images(rows, turn))
        captured = [one for one in lab.sessions[0].runs if one != "-1"]
        assert len(captured) == len(set(captured)) == 30

    def test_what_leaves_is_released_where_the_session_can(self, lab: OrtDouble) -> None:
        engine = loaded(OrtCudaBackend(), graph_of())
        for rows in range(1, 11):
            answers(engine, images(rows))
        assert lab.sessions[0].released == [1, 2]

    def test_a_session_captures_so_many_and_no_more(self, lab: OrtDouble) -> None:
        engine = loaded(OrtCudaBackend(), graph_of())
        for turn in range(MOST_CAPTURES // 9 + 2):
            for rows in range(1, 10):
                for _ in range(2):
                    answers(engine, images(rows, turn))
        assert len(set(lab.sessions[0].runs) - {"-1"}) == MOST_CAPTURES
        assert lab.sessions[0].runs[-1] == "-1"

    def test_another_thread_captures_its_own(self, lab: OrtDouble) -> None:
        engine, captures = loaded(OrtCudaBackend(), graph_of()), []
        lab_session = lab.sessions[0]
        for _ in range(3):
            answers(engine, images(1))
        real_alone = engine._gate.alone

        def watched() -> Any:
            captures.append(threading.get_ident())
            return real_alone()

        engine._gate.alone = watched  # type: ignore[method-assign]
        answers(engine, images(1))
        other = threading.Thread(target=lambda: [answers(engine, images(1)) for _ in range(3)])
        other.start()
        other.join(PATIENCE_S)
        assert len(captures) == 1
        assert lab_session.runs == ["-1", *["1"] * 6]

    def test_while_the_device_is_in_use_nothing_is_captured(self, lab: OrtDouble) -> None:
        backend = OrtCudaBackend()
        engine = loaded(backend, graph_of())
        with backend._gate.shared():  # as while another mode is loaded
            for _ in range(3):
                answers(engine, images(1))
        answers(engine, images(1))
        assert lab.sessions[0].runs == ["-1", "-1", "-1", "1"]

    def test_modes_of_a_backend_share_its_gate_also_while_they_load(self, lab: OrtDouble) -> None:
        del lab
        backend, done = OrtCudaBackend(), threading.Event()
        made = backend.build(graph_of(), "m")

        def load() -> None:
            backend.load(MODE, lambda: made)
            done.set()

        with backend._gate.alone() as alone:
            assert alone
            loader = threading.Thread(target=load)
            loader.start()
            assert not done.wait(0.2)
        assert done.wait(PATIENCE_S)
        loader.join(PATIENCE_S)

    def test_a_capture_that_breaks_off_is_said_and_the_mode_goes_on_in_a_new_session(
        self, lab: OrtDouble, caplog: pytest.LogCaptureFixture
    ) -> None:
        lab.break_captures = True
        graph = graph_of()
        wanted = reference(graph)
        engine = loaded(OrtCudaBackend(), graph)
        with caplog.at_level(logging.WARNING):
            for turn in range(5):
                assert np.allclose(answers(engine, images(2, turn)), wanted(images(2, turn)), atol=1e-5)
        assert caplog.text.count("mode 'm' runs without CUDA graphs") == 1
        assert "stream is capturing" in caplog.text
        assert [one.graphs for one in lab.sessions] == [True, False]
        assert lab.sessions[1].runs == [None] * 4

    def test_one_that_breaks_off_and_cannot_be_opened_again_leaves_a_closed_engine(self, lab: OrtDouble) -> None:
        lab.break_captures = True
        engine = loaded(OrtCudaBackend(), graph_of())
        answers(engine, images(1))
        lab.refuse = RuntimeError("out of memory")
        with pytest.raises(EngineError, match="out of memory"):
            answers(engine, images(1))
        with pytest.raises(EngineError, match="closed"):
            answers(engine, images(1))


class TestComputing:
    """The whole backend for real, but on the CPU provider."""

    @pytest.mark.parametrize("seed", range(4))
    def test_a_built_mode_answers_as_the_cpu_engine_does(self, seed: int) -> None:
        graph = graph_of(seed)
        wanted = reference(graph)
        engine = loaded(OnTheCpu(), graph)
        for rows in (1, 3, 3, 1, 1):
            x = images(rows, 10 * seed + rows)
            assert np.allclose(answers(engine, x), wanted(x), atol=1e-5)
        engine.close()

    def test_half_precision_comes_in_float_and_near(self) -> None:
        supernet = make_supernet()
        groups = uniform(supernet, 4)
        wanted = reference(lower(supernet, groups))(images(2))
        half = dataclasses.replace(MODE, precision="fp16")
        engine = loaded(OnTheCpu(), lower(supernet, groups, precision="fp16"), half)
        for _ in range(2):
            found = answers(engine, images(2))
            assert found.dtype == np.float32
            assert 0 < np.abs(found - wanted).max() / np.abs(wanted).max() <= PRECISIONS["fp16"]

    def test_it_answers_a_bundle_s_golden_inputs(self, bundle: Bundle) -> None:
        backend, canary = OnTheCpu(bundle), Canary(bundle, simulated=False)
        for mode in bundle.modes:
            engine = loaded(backend, lower(Supernet.of(bundle), mode.groups, bundle.statistics(mode)), mode)
            canary.check(mode, engine)
            engine.close()

    def test_numbers_given_at_loading_are_those_it_computes_with(self) -> None:
        backend = OnTheCpu()
        made = backend.build(graph_of(), "m")
        changed = Artifact(made.model, {name: value * 0 for name, value in made.numbers.items()})
        assert not np.allclose(
            answers(backend.load(MODE, lambda: made), images(1)),
            answers(backend.load(MODE, lambda: changed), images(1)),
        )

    def test_a_cpu_session_is_refused_by_onnx_runtime_itself_when_asked_as_the_gpu_s_are(self) -> None:
        """The entry that keeps nodes off the CPU is known to every version that is supported."""

        class Strict(OnTheCpu):
            _session_options = OrtCudaBackend._session_options

        with pytest.raises(EngineError, match=r"fallback to CPU EP has been explicitly disabled|disabled fallback"):
            loaded(Strict(), graph_of())


def reference(graph: Graph) -> Any:
    """What a plain session answers."""
    engine = OrtBackend().load_bytes(graph.to_bytes(), name="reference")
    return lambda x: answers(engine, x)
