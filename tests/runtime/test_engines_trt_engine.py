"""Modes on the test double of TensorRT answer as ONNX Runtime does, share their memory, and say why they fail."""

import threading
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import pytest

from tests.doubles.board import DISCRETE, NANO, ORIN_NANO, XAVIER_NX
from tests.doubles.cudart_double import Runtime
from tests.doubles.cudart_types import cudaError_t
from tests.doubles.pycuda_objects import LogicError, PagelockedHostAllocation
from tests.runtime.fakes import PATIENCE_S
from tests.runtime.trt_rig import VERSIONS, Rig, near, replaced, rigged
from tests.supernets import images
from wenet_runtime.bundle import Bundle
from wenet_runtime.engines import trt_engine
from wenet_runtime.errors import EngineError

BOARDS = {"nano": NANO, "xavier": XAVIER_NX, "orin": ORIN_NANO, "discrete": DISCRETE}
NEW, OLD = "10.3.0", "8.2.1"


@pytest.fixture(params=VERSIONS)
def rig(request: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with rigged(monkeypatch, bundle, request.param) as one:
        yield one


@pytest.fixture(params=[OLD, NEW])
def either(request: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """One version of each interface."""
    with rigged(monkeypatch, bundle, request.param, board=ORIN_NANO) as one:
        yield one


class TestAnswers:
    def test_they_are_onnx_runtime_s_for_any_batch(self, rig: Rig) -> None:
        artifact, given = rig.artifact(), images(20)
        wanted = rig.answers(given)
        for rows in (1, 2, 7, 8, 9, 16, 20):  # each the first that an engine sees
            engine = rig.backend.load(rig.bundle.mode("m0"), lambda: artifact)
            assert near(engine.infer({"input": given[:rows]})["logits"], wanted[:rows]), rows
            engine.close()

    @pytest.mark.parametrize("cuda", ["pycuda", "cuda-python"])
    @pytest.mark.parametrize("board", sorted(BOARDS))
    @pytest.mark.parametrize("version", [OLD, NEW])
    def test_they_pass_through_each_kind_of_memory(
        self, version: str, board: str, cuda: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with rigged(monkeypatch, bundle, version, board=BOARDS[board], cuda=cuda) as rig:
            engine = rig.engine()
            for rows in (1, 3, 8, 1):
                given = images(rows, seed=rows)
                assert near(engine.infer({"input": given})["logits"], rig.answers(given))

    @pytest.mark.parametrize("cuda", ["pycuda", "cuda-python"])
    def test_tensors_are_copied_where_memory_cannot_be_mapped(
        self, cuda: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refused(self: Any, *args: Any) -> Any:
            if cuda == "pycuda":
                raise LogicError("cuMemHostGetDevicePointer failed: operation not supported")
            return cudaError_t.cudaErrorInvalidValue, 0

        place, name = {
            "pycuda": (PagelockedHostAllocation, "get_device_pointer"),
            "cuda-python": (Runtime, "cudaHostGetDevicePointer"),
        }[cuda]
        monkeypatch.setattr(place, name, refused)
        with rigged(monkeypatch, bundle, OLD, board=NANO, cuda=cuda) as rig:
            engine = rig.engine()
            for rows in (1, 3, 8):
                given = images(rows, seed=rows)
                assert near(engine.infer({"input": given})["logits"], rig.answers(given))
        assert caplog.text.count("memory cannot be mapped") == 1

    def test_a_batch_s_order_and_layout_do_not_matter(self, either: Rig) -> None:
        given = images(5)
        turned = np.asfortranarray(given)
        assert not turned.flags.c_contiguous
        engine = either.engine()
        assert np.array_equal(engine.infer({"input": turned})["logits"], engine.infer({"input": given})["logits"])

    def test_one_row_and_a_batch_go_by_turns(self, either: Rig) -> None:
        engine, given = either.engine(), images(8)
        wanted = either.answers(given)
        for _ in range(3):
            assert near(engine.infer({"input": given})["logits"], wanted)
            assert near(engine.infer({"input": given[3:4]})["logits"], wanted[3:4])

    def test_an_answer_is_not_overwritten_by_the_next(self, either: Rig) -> None:
        engine = either.engine()
        first = engine.infer({"input": images(2, seed=1)})["logits"]
        kept = first.copy()
        engine.infer({"input": images(2, seed=2)})
        assert np.array_equal(first, kept)

    def test_the_context_for_batches_is_made_when_the_first_batch_comes(self, either: Rig) -> None:
        engine = either.engine()
        made: List[int] = []
        opened = trt_engine.open_context

        def counted(*args: Any, **how: Any) -> Any:
            made.append(how["profile"])
            return opened(*args, **how)

        monkeypatch = pytest.MonkeyPatch()
        with monkeypatch.context() as patch:
            patch.setattr(trt_engine, "open_context", counted)
            for rows in (1, 1, 2, 8, 1, 20):
                engine.infer({"input": images(rows)})
        assert made == [1]


class TestSharedMemory:
    def test_it_grows_with_the_largest_mode_and_older_modes_follow(self, either: Rig) -> None:
        given = images(3)
        small, bench = either.engine("m0"), either.backend._bench
        before = small.infer({"input": given})["logits"]
        placed, size = bench.block.address, bench.block.size
        large = either.engine("m2")
        assert near(large.infer({"input": given})["logits"], either.answers(given, "m2"))
        assert bench.block.size > size
        assert bench.block.address != placed
        placed = bench.block.address
        assert np.array_equal(small.infer({"input": given})["logits"], before)
        assert near(large.infer({"input": given})["logits"], either.answers(given, "m2"))
        assert bench.block.address == placed

    def test_modes_take_no_device_memory_of_their_own(self, either: Rig) -> None:
        assert either.double.gpu is not None
        for mode_id in ("m2", "m1", "m0"):
            either.engine(mode_id).infer({"input": images(1)})
        taken = [one for one in either.double.gpu.memory.live if one.owner == "an execution context"]
        assert all(one.size <= 1 for one in taken)
        sizes = [one.size for one in either.double.gpu.memory.live if one.owner.endswith("mem_alloc")]
        assert sizes == [either.backend._bench.block.size]

    def test_two_threads_may_run_modes(self, rig: Rig) -> None:
        modes = ("m0", "m2")
        engines = {mode_id: rig.engine(mode_id) for mode_id in modes}
        given = {mode_id: images(3, seed=at) for at, mode_id in enumerate(modes)}
        wanted = {mode_id: rig.answers(given[mode_id], mode_id) for mode_id in modes}
        failures: List[BaseException] = []
        started = threading.Barrier(2)

        def work(mode_id: str) -> None:
            try:
                started.wait(PATIENCE_S)
                for rows in (3, 1) * 10:
                    found = engines[mode_id].infer({"input": given[mode_id][:rows]})["logits"]
                    assert near(found, wanted[mode_id][:rows])
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test's thread must hear of it
                failures.append(error)

        threads = [threading.Thread(target=work, args=(mode_id,)) for mode_id in modes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert failures == []

    def test_only_one_thread_is_within_a_run(self, either: Rig) -> None:
        """The double runs work only when it is waited for, so the overlap itself is looked for here."""
        engines = [either.engine("m0"), either.engine("m2")]
        within, most = [0], [0]
        run = trt_engine.TrtEngine._run

        def watched(self: Any, *args: Any) -> None:
            within[0] += 1
            most[0] = max(most[0], within[0])
            threading.Event().wait(0.001)  # a chance for the other thread; too short a one only hides a failure
            run(self, *args)
            within[0] -= 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trt_engine.TrtEngine, "_run", watched)
            works = [
                threading.Thread(target=lambda one=one: [one.infer({"input": images(1)}) for _ in range(20)])  # type: ignore[misc]
                for one in engines
            ]
            for work in works:
                work.start()
            for work in works:
                work.join(PATIENCE_S)
        assert most == [1]

    def test_too_little_memory_is_said_and_smaller_modes_go_on(self, either: Rig) -> None:
        small, large = either.engine("m0"), either.engine("m2")
        given = images(1)
        before = small.infer({"input": given})["logits"]
        assert either.double.gpu is not None
        memory = either.double.gpu.memory
        room, size = memory.capacity_bytes, either.backend._bench.block.size
        memory.capacity_bytes = memory.used_bytes
        with pytest.raises(EngineError, match=r"needs 0\.\d+ MB of the GPU's memory .* serve fewer modes"):
            large.infer({"input": given})
        assert either.backend._bench.block.size == size  # before another program takes it
        assert np.array_equal(small.infer({"input": given})["logits"], before)
        memory.capacity_bytes = room
        assert near(large.infer({"input": given})["logits"], either.answers(given, "m2"))


class TestRefusals:
    def test_inputs_of_another_name_type_or_shape_are_refused_and_the_engine_goes_on(self, either: Rig) -> None:
        refused: List[Tuple[Dict[str, Any], str]] = [
            (
                {"input": np.zeros((1, 1, 8, 8), np.float64)},
                r"'input' is float64 \(1, 1, 8, 8\), the mode reads float32",
            ),
            ({"input": np.zeros((1, 2, 8, 8), np.float32)}, r"reads float32 \(rows, 1, 8, 8\)"),
            ({"input": np.zeros((1, 1, 8), np.float32)}, "the mode reads"),
            ({"input": np.zeros(8, np.float32)}, "the mode reads"),
            ({"input": np.zeros((0, 1, 8, 8), np.float32)}, r"have \[0\] rows"),
            ({"other": images(1)}, r"given are \['other'\], the mode reads \['input'\]"),
            ({"input": images(1), "other": images(1)}, "the mode reads"),
            ({}, "the mode reads"),
        ]
        engine, wanted = either.engine(), either.answers(images(1))
        for inputs, said in refused:
            with pytest.raises(EngineError, match=f"TensorRT failed: .*{said}"):
                engine.infer(inputs)
            assert near(engine.infer({"input": images(1)})["logits"], wanted)

    def test_a_closed_engine_refuses_and_closing_twice_is_harmless(self, either: Rig) -> None:
        engine = either.engine()
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            engine.infer({"input": images(1)})

    def test_closing_one_mode_leaves_the_others(self, either: Rig) -> None:
        first, second = either.engine("m0"), either.engine("m2")
        second.infer({"input": images(3)})
        second.close()
        assert near(first.infer({"input": images(3)})["logits"], either.answers(images(3)))


class TestFailures:
    """TensorRT says why to its logger, and only that it failed to who asked."""

    @staticmethod
    def failing(how: str, texts: List[str]) -> Any:
        def fail(self: Any, *args: Any) -> bool:
            for text in texts:
                self._library.error(self._engine._logger, text)
            if how == "raises":
                raise RuntimeError("something in C++")
            return False

        return fail

    @pytest.mark.parametrize("how", ["raises", "says no"])
    def test_a_failing_run_carries_what_the_logger_heard_and_the_engine_goes_on(self, rig: Rig, how: str) -> None:
        engine, given = rig.engine(), images(2)
        wanted = engine.infer({"input": given})["logits"]
        name = "execute_async_v2" if rig.double.version == OLD else "execute_async_v3"
        context = rig.double.tensorrt.IExecutionContext
        with replaced(context, **{name: self.failing(how, ["1: [reformat.cpp] launch failed"])}):
            with pytest.raises(EngineError, match=r"TensorRT failed: .*: 1: \[reformat\.cpp\] launch failed"):
                engine.infer({"input": given})
        assert np.array_equal(engine.infer({"input": given})["logits"], wanted)

    def test_nothing_of_a_failed_run_is_under_way_when_the_next_one_writes(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with rigged(monkeypatch, bundle, NEW, board=DISCRETE) as rig:
            engine = rig.engine()
            with replaced(rig.double.tensorrt.IExecutionContext, execute_async_v3=self.failing("says no", [])):
                with pytest.raises(EngineError, match="TensorRT failed"):
                    engine.infer({"input": images(2, seed=1)})
            assert rig.double.gpu is not None
            assert rig.double.gpu.pending() == []
            assert near(engine.infer({"input": images(2, seed=2)})["logits"], rig.answers(images(2, seed=2)))

    @pytest.mark.parametrize(
        ("version", "name"), [(OLD, "set_binding_shape"), (NEW, "set_input_shape"), (NEW, "set_tensor_address")]
    )
    def test_a_shape_or_address_that_is_not_taken_is_a_failure(
        self, version: str, name: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with rigged(monkeypatch, bundle, version) as rig:
            engine = rig.engine()
            with replaced(rig.double.tensorrt.IExecutionContext, **{name: self.failing("says no", ["not so"])}):
                with pytest.raises(EngineError, match="does not run this batch: not so"):
                    engine.infer({"input": images(1)})
            assert near(engine.infer({"input": images(1)})["logits"], rig.answers(images(1)))

    @pytest.mark.parametrize("how", ["raises", "says no"])
    def test_a_profile_that_is_not_taken_is_a_failure_and_is_tried_again(self, either: Rig, how: str) -> None:
        engine = either.engine()
        context = either.double.tensorrt.IExecutionContext
        with replaced(context, set_optimization_profile_async=self.failing(how, ["no such profile"])):
            with pytest.raises(EngineError, match=r"TensorRT failed: .*: no such profile"):
                engine.infer({"input": images(1)})
        assert near(engine.infer({"input": images(1)})["logits"], either.answers(images(1)))

    def test_only_what_was_said_since_is_told_and_only_the_last_of_much(self, either: Rig) -> None:
        engine = either.engine()
        name = "execute_async_v2" if either.double.version == OLD else "execute_async_v3"
        context = either.double.tensorrt.IExecutionContext
        lines = [f"line {at}" for at in range(100)]
        for texts, wanted in ((["old"], ": old"), ([], ""), (lines, ": line 97 | line 98 | line 99")):
            with replaced(context, **{name: self.failing("says no", texts)}), pytest.raises(EngineError) as caught:
                engine.infer({"input": images(1)})
            assert str(caught.value) == f"TensorRT failed: it does not run this batch{wanted}"

    def test_a_failing_gpu_carries_it_too(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        with rigged(monkeypatch, bundle, NEW) as rig:
            engine = rig.engine()
            gpu = rig.backend._gpu

            def fail() -> None:
                rig.double.tensorrt._library.error(rig.backend._logger, "CUDA error 719")
                raise EngineError("the GPU failed: unspecified launch failure")

            with monkeypatch.context() as patch:
                patch.setattr(gpu, "synchronize", fail)
                with pytest.raises(EngineError, match=r"TensorRT failed: the GPU failed: .*: CUDA error 719"):
                    engine.infer({"input": images(1)})
            with gpu.current():
                gpu.synchronize()
