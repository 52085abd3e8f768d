"""Buffers that stay on a device: everything but CUDA graphs, for real, on ONNX Runtime's CPU provider."""

import contextlib
import gc
import threading
from typing import Any, Dict, Iterator, List

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.supernets import images, make_supernet, random_groups, uniform
from wenet_runtime.engines.ort_binding import BoundEngine, CaptureGate
from wenet_runtime.errors import EngineError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import lower

PATIENCE_S = 60.0


def session_of(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def network(seed: int) -> bytes:
    supernet = make_supernet(seed)
    return lower(supernet, random_groups(supernet, seed)).to_bytes()


def bound(model: bytes, **wanted: Any) -> BoundEngine:
    return BoundEngine(lambda graphs: session_of(model), "m", "cpu", graphs=False, gate=CaptureGate(), **wanted)


def answers(engine: BoundEngine, x: NDArray[Any]) -> NDArray[Any]:
    return engine.infer({"input": x})["logits"]


@pytest.fixture
def engine() -> Iterator[BoundEngine]:
    supernet = make_supernet()
    one = bound(lower(supernet, uniform(supernet, 4)).to_bytes())
    yield one
    one.close()


class TestAnswers:
    @pytest.mark.parametrize("seed", range(8))
    def test_they_equal_a_plain_run_s_for_any_configuration_and_order_of_batch_sizes(self, seed: int) -> None:
        model = network(seed)
        plain, engine = session_of(model), bound(model, kept=3)
        random = np.random.default_rng(seed)
        for turn in range(40):
            x = images(int(random.integers(1, 7)), 1000 * seed + turn)
            assert np.array_equal(answers(engine, x), plain.run(["logits"], {"input": x})[0])

    def test_another_network_s_differ(self) -> None:
        assert not np.allclose(answers(bound(network(0)), images(2)), answers(bound(network(1)), images(2)))

    def test_one_is_not_overwritten_by_those_that_use_its_buffers_again(self, engine: BoundEngine) -> None:
        batches = [images(2, seed) for seed in range(6)]
        found = [answers(engine, x) for x in batches]
        kept = [one.copy() for one in found]
        for x in reversed(batches):
            answers(engine, x)
        assert all(np.array_equal(one, other) for one, other in zip(found, kept))
        assert len({one.tobytes() for one in found}) == len(batches)

    @pytest.mark.parametrize(
        "prepare", [np.asfortranarray, lambda x: x[::-1], lambda x: np.broadcast_to(x[:1], x.shape)]
    )
    def test_inputs_may_lie_in_memory_as_they_like(self, engine: BoundEngine, prepare: Any) -> None:
        x = prepare(images(3))
        wanted = answers(engine, np.array(x, order="C"))
        x.setflags(write=False)
        for _ in range(2):
            assert np.array_equal(answers(engine, x), wanted)

    def test_every_type_of_input_and_all_outputs_come_as_from_a_plain_run(self) -> None:
        nodes = [
            helper.make_node("Cast", ["bytes"], ["b"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["wide"], ["w"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["half"], ["h"], to=TensorProto.FLOAT),
            helper.make_node("Sum", ["b", "w", "h"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Cast", ["sum"], ["small"], to=TensorProto.FLOAT16),
        ]
        kinds = {"bytes": TensorProto.UINT8, "wide": TensorProto.INT64, "half": TensorProto.FLOAT16}
        made = {"sum": TensorProto.FLOAT, "whole": TensorProto.INT64, "small": TensorProto.FLOAT16}
        inputs = [helper.make_tensor_value_info(name, kind, ["batch", 3]) for name, kind in kinds.items()]
        outputs = [helper.make_tensor_value_info(name, kind, ["batch", 3]) for name, kind in made.items()]
        model = Graph(nodes, {}, inputs, outputs).to_bytes()
        plain, engine = session_of(model), bound(model)
        random = np.random.default_rng(0)
        for rows in (2, 2, 2, 1, 1):
            x = {
                "bytes": random.integers(0, 255, (rows, 3)).astype(np.uint8),
                "wide": random.integers(-1000, 1000, (rows, 3)),
                "half": random.normal(size=(rows, 3)).astype(np.float16),
            }
            found = engine.infer(x)
            for name, value in zip(made, plain.run(list(made), x)):
                assert found[name].dtype == value.dtype
                assert np.array_equal(found[name], value)


class TestBuffers:
    def test_those_of_a_batch_size_are_used_again(self, engine: BoundEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        made = count_allocations(monkeypatch)
        for rows in (1, 2, 1, 2, 2, 1):
            answers(engine, images(rows))
        assert made == [[1, 1, 8, 8], [1, 10], [2, 1, 8, 8], [2, 10]]

    def test_the_least_recently_used_go_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made, engine = count_allocations(monkeypatch), bound(network(0), kept=2)
        for rows in (1, 2, 1, 3):  # 3 takes the place of 2
            answers(engine, images(rows))
        del made[:]
        for rows in (1, 3, 1):
            answers(engine, images(rows))
        assert made == []
        answers(engine, images(2))
        assert [shape[0] for shape in made] == [2, 2]

    def test_they_are_at_most_as_many_as_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = bound(network(0), kept=2)
        for rows in (1, 2, 3, 4, 5, 4, 3, 2, 1):
            answers(engine, images(rows))
        gc.collect()
        assert len(engine._buffers) == 2

    def test_none_are_made_for_a_batch_of_nothing(self, engine: BoundEngine) -> None:
        for _ in range(2):
            with contextlib.suppress(EngineError):  # some versions refuse it
                assert answers(engine, images(0)).shape == (0, 10)
        assert not engine._buffers

    def test_a_run_waits_until_its_inputs_have_arrived_and_for_its_outputs(
        self, engine: BoundEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: List[str] = []

        def watch(owner: Any, name: str) -> None:
            real = getattr(owner, name)

            def watched(*given: Any) -> Any:
                calls.append(name)
                return real(*given)

            monkeypatch.setattr(owner, name, watched)

        answers(engine, images(1))
        watch(onnxruntime.OrtValue, "update_inplace")
        watch(onnxruntime.OrtValue, "numpy")
        watch(onnxruntime.InferenceSession, "run_with_iobinding")
        for name in ("synchronize_inputs", "synchronize_outputs"):
            watch(onnxruntime.IOBinding, name)
        answers(engine, images(1))
        assert calls == ["update_inplace", "synchronize_inputs", "run_with_iobinding", "synchronize_outputs", "numpy"]


class TestRefusals:
    @pytest.mark.parametrize("warm", [False, True])
    @pytest.mark.parametrize(
        "inputs",
        [
            {"input": np.zeros((1, 1, 8, 8), np.float64)},
            {"input": np.zeros((1, 1, 9, 9), np.float64)},
            {"input": np.zeros((1, 2, 8, 8), np.float32)},
            {"input": np.zeros((1, 1, 4, 16), np.float32)},
            {"input": np.zeros(64, np.float32)},
            {"other": images(1)},
            {"input": images(1), "other": images(1)},
            {},
        ],
    )
    def test_inputs_that_do_not_fit_are_an_engine_error_and_the_engine_goes_on(
        self, engine: BoundEngine, inputs: Dict[str, Any], warm: bool
    ) -> None:
        wanted = answers(engine, images(1)) if warm else None
        for _ in range(2):
            with pytest.raises(EngineError, match="ONNX Runtime failed"):
                engine.infer(inputs)
        found = answers(engine, images(1))
        assert found.shape == (1, 10)
        assert wanted is None or np.array_equal(found, wanted)

    def test_a_closed_engine_refuses_and_closing_twice_is_harmless(self, engine: BoundEngine) -> None:
        answers(engine, images(1))
        engine.close()
        engine.close()
        for _ in range(2):
            with pytest.raises(EngineError, match="closed"):
                answers(engine, images(1))


def test_engines_of_several_threads_do_not_disturb_each_other() -> None:
    gate, failures = CaptureGate(), []  # type: ignore[var-annotated]

    def work(seed: int) -> None:
        try:
            model = network(seed)
            plain = session_of(model)
            engine = BoundEngine(lambda graphs: session_of(model), str(seed), "cpu", graphs=False, gate=gate)
            for turn in range(30):
                x = images(1 + turn % 3, 100 * seed + turn)
                assert np.array_equal(answers(engine, x), plain.run(["logits"], {"input": x})[0])
        except BaseException as error:  # noqa: BLE001 - the test's thread shows it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert failures == []


class TestGate:
    def test_a_capture_is_not_granted_while_another_uses_the_device(self) -> None:
        gate = CaptureGate()
        with gate.shared():
            with gate.shared(), gate.alone() as alone:
                assert not alone
            with gate.alone() as alone:
                assert not alone
        with gate.alone() as alone:
            assert alone
            for _ in range(2):  # also after one that was not granted
                with gate.alone() as second:
                    assert not second
        with gate.alone() as alone:
            assert alone

    def test_others_wait_for_the_end_of_a_capture(self) -> None:
        gate, entered = CaptureGate(), threading.Event()

        def use() -> None:
            with gate.shared():
                entered.set()

        user = threading.Thread(target=use)
        with gate.alone():
            user.start()
            assert not entered.wait(0.2)
        assert entered.wait(PATIENCE_S)
        user.join(PATIENCE_S)

    def test_it_opens_again_when_what_went_through_failed(self) -> None:
        gate = CaptureGate()
        with pytest.raises(ValueError), gate.shared():
            raise ValueError
        with pytest.raises(ValueError), gate.alone():
            raise ValueError
        with gate.alone() as alone:
            assert alone


def count_allocations(monkeypatch: pytest.MonkeyPatch) -> List[List[int]]:
    """Shapes of the buffers that are made from now on."""
    made: List[List[int]] = []
    real = onnxruntime.OrtValue.ortvalue_from_shape_and_type

    def counted(shape: List[int], kind: Any, device: str) -> Any:
        made.append(shape)
        return real(shape, kind, device)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", counted)
    return made
