"""The doubles answer wrong use as the real libraries do: an exception of theirs, or False and a line in the log."""

import contextlib
import threading
from typing import Any, Callable, Iterator, List

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.doubles.board import NANO, XAVIER_NX
from tests.doubles.install import Double, install
from tests.doubles.memory import Misuse
from tests.runtime.double_rig import SHAPE, Rig, build, capsule, logger_of, small_model


@pytest.fixture(params=["8.2.1", "10.3.0"])
def double(request: Any, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install(monkeypatch, request.param)


@pytest.fixture
def rig(double: Double) -> Iterator[Rig]:
    one = Rig(double)
    yield one
    one.close()
    double.assert_all_freed()


# Running.


def test_nothing_runs_before_every_shape_is_set(rig: Rig) -> None:
    rig.send()
    assert rig.execute() is False
    assert "not all dimensions are specified: x" in rig.logger.errors()


def test_nothing_runs_without_an_address(rig: Rig) -> None:
    rig.set_shape()
    rig.send()
    assert rig.execute(y=0) is False
    assert "no address is set for y" in rig.logger.errors()


def test_an_address_that_was_never_set_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(install(monkeypatch, "10.3.0"))
    rig.set_shape()
    rig.context.set_tensor_address("x", int(rig.device_in))
    assert rig.context.execute_async_v3(rig.stream.handle) is False
    assert "no address is set for y" in rig.logger.errors()
    rig.close()


@pytest.mark.parametrize("shape", [(5, *SHAPE), (0, *SHAPE), (2, 3, 8, 9), (2, 3, 8)])
def test_a_shape_outside_of_the_profile_is_refused(rig: Rig, shape: Any) -> None:
    assert rig.set_shape(shape) is False
    assert f"cannot have the shape {shape}" in rig.logger.errors()


def test_nothing_runs_without_device_memory(double: Double) -> None:
    rig = Rig(double, own=False)
    rig.set_shape()
    rig.send()
    assert rig.execute() is False
    assert "no device memory is set" in rig.logger.errors()
    rig.close()


def test_too_few_bytes_of_device_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    double = install(monkeypatch, "10.3.0")
    rig = Rig(double, own=False)
    block = rig.drv.mem_alloc(rig.memory_size)
    rig.context.set_device_memory(int(block), rig.memory_size - 1)
    assert "are needed" in rig.logger.errors()
    rig.set_shape()
    assert rig.execute() is False
    block.free()
    rig.close()


@pytest.mark.parametrize("version", ["8.2.1", "8.5.2"])
def test_before_10_a_second_context_has_no_profile_until_the_first_is_gone(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    rig = Rig(install(monkeypatch, version))
    second = rig.new_context(own=True)
    assert second.active_optimization_profile == -1
    assert rig.set_shape(context=second) is False
    assert ("belongs to profile 0" if version == "8.2.1" else "no optimization profile") in rig.logger.errors()
    assert rig.execute(context=second) is False
    assert "no optimization profile is set" in rig.logger.errors()
    with pytest.raises(RuntimeError, match="set optimization profile async"):
        second.set_optimization_profile_async(0, rig.stream.handle)
    rig.context = None
    assert second.set_optimization_profile_async(0, rig.stream.handle) is True
    assert second.active_optimization_profile == 0
    del second
    rig.close()


def test_a_binding_of_another_profile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(install(monkeypatch, "8.2.1"))
    assert rig.context.set_binding_shape(2, rig.x.shape) is False
    assert "is no binding of this engine" in rig.logger.errors()
    assert rig.context.set_binding_shape(1, rig.x.shape) is False
    assert "which is no input" in rig.logger.errors()
    rig.close()


def test_as_many_bindings_are_wanted_as_the_engine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(install(monkeypatch, "8.2.1"))
    with pytest.raises(Misuse, match="1 bindings, and the engine has 2"):
        rig.context.execute_async_v2([int(rig.device_in)], rig.stream.handle)
    rig.close()


@pytest.mark.parametrize("handle", [12345, 2**40])
def test_a_number_that_is_no_stream_is_a_misuse(rig: Rig, handle: int) -> None:
    rig.set_shape()
    with pytest.raises(Misuse, match="is no stream"):
        rig.execute(stream=handle)
    rig.double.gpu.misuses.clear()  # type: ignore[union-attr]


@pytest.mark.parametrize("address", [1, 0x123456789, 0x7_FFFF_FFFF])
def test_an_address_of_nobody_is_a_misuse(rig: Rig, address: int) -> None:
    with pytest.raises(Misuse, match="is no device memory"):
        rig.drv.memcpy_htod(address, rig.x)
    rig.double.gpu.misuses.clear()  # type: ignore[union-attr]


def test_a_context_keeps_its_engine_alive(rig: Rig) -> None:
    rig.engine = None
    rig.set_shape()
    rig.send()
    assert rig.execute()
    assert np.isfinite(rig.receive()).all()


# Types of arguments.


def test_device_memory_is_a_capsule_before_8_5_and_an_integer_after(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("8.2.1", "8.4.1", "8.5.2", "8.6.1", "10.3.0"):
        rig = Rig(install(monkeypatch, version), own=False)
        block = rig.drv.mem_alloc(rig.memory_size)
        address: Any = int(block)
        right, wrong = (
            (capsule(address), address) if version < "8.5" and version != "10.3.0" else (address, capsule(address))
        )
        with pytest.raises(TypeError, match="incompatible function arguments"):
            rig.context.device_memory = wrong
        rig.context.device_memory = right
        with pytest.raises(AttributeError):
            rig.context.device_memory  # noqa: B018 - it cannot be read
        block.free()
        rig.close()


def test_set_device_memory_came_with_10_3(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, there in (("8.2.1", False), ("8.6.1", False), ("10.0.1", False), ("10.3.0", True)):
        double = install(monkeypatch, version)
        assert hasattr(double.tensorrt.IExecutionContext, "set_device_memory") is there


def test_a_logger_whose_base_was_not_initialised_cannot_be_made(double: Double) -> None:
    class Forgetful(double.tensorrt.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            self.lines: List[str] = []

        def log(self, severity: Any, msg: str) -> None:
            self.lines.append(msg)

    with pytest.raises(TypeError, match=r"__init__\(\) must be called when overriding __init__"):
        Forgetful()


@pytest.mark.parametrize("wrong", [None, object(), print])
def test_what_is_no_logger_is_refused(double: Double, wrong: Any) -> None:
    for cls in (double.tensorrt.Builder, double.tensorrt.Runtime):
        with pytest.raises(TypeError):
            cls(wrong)


def test_arguments_of_other_types_are_refused(rig: Rig) -> None:
    trt = rig.trt
    builder = trt.Builder(rig.logger)
    config = builder.create_builder_config()
    wrongs: List[Callable[[], Any]] = [
        lambda: builder.create_network(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH),
        lambda: config.set_flag(0),
        lambda: config.set_flag(trt.DataType.HALF),
        lambda: builder.build_serialized_network(config, builder.create_network(1)),
        lambda: rig.runtime.deserialize_cuda_engine("text"),
        lambda: rig.runtime.deserialize_cuda_engine(None),
        lambda: config.create_timing_cache(None),
        lambda: rig.execute(x=1.5),  # type: ignore[arg-type]
        lambda: rig.execute(stream=rig.stream),
        lambda: rig.drv.memcpy_htod(rig.device_in, [1.0, 2.0]),
        lambda: rig.drv.memcpy_htod_async(rig.device_in, rig.host_in, rig.stream.handle),
        lambda: rig.drv.mem_alloc(4.0),
    ]
    for wrong in wrongs:
        with pytest.raises(TypeError):
            wrong()


def test_a_plan_is_a_buffer_and_nothing_else(rig: Rig) -> None:
    plan = build(rig.trt, rig.logger, small_model())
    assert bytes(memoryview(plan)) == bytes(plan)
    for wrong in (lambda: len(plan), lambda: plan[0], lambda: plan + b"", lambda: list(plan)):
        with pytest.raises(TypeError):
            wrong()  # type: ignore[no-untyped-call]
    with pytest.raises(AttributeError):
        plan.hex()


# Building.


def refused(trt: Any, logger: Any, model: bytes) -> List[Any]:
    network = trt.Builder(logger).create_network(1)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model) is False
    return [parser.get_error(index) for index in range(parser.num_errors)]


def test_before_10_onnx_needs_explicit_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, taken in (("8.2.1", False), ("8.6.1", False), ("10.3.0", True)):
        trt = install(monkeypatch, version).tensorrt
        logger = logger_of(trt)
        parser = trt.OnnxParser(trt.Builder(logger).create_network(0), logger)
        assert parser.parse(small_model()) is taken
        assert parser.num_errors == (not taken)


@pytest.mark.parametrize(("version", "last"), [("8.2.1", 13), ("8.5.2", 17), ("10.3.0", 20)])
def test_newer_operator_sets_are_refused(monkeypatch: pytest.MonkeyPatch, version: str, last: int) -> None:
    trt = install(monkeypatch, version).tensorrt
    logger = logger_of(trt)
    assert build(trt, logger, small_model(opset=last)) is not None
    assert f"opset {last + 1}" in refused(trt, logger, small_model(opset=last + 1))[0].desc()


def test_8_2_refuses_a_newer_ir_version(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = install(monkeypatch, "8.2.1").tensorrt
    model = onnx.ModelProto.FromString(small_model())
    model.ir_version = 9
    [error] = refused(trt, logger_of(trt), model.SerializeToString())
    assert error.code() == trt.ErrorCode.MODEL_DESERIALIZE_FAILED


def test_unknown_operators_and_bytes_are_refused(double: Double) -> None:
    trt = double.tensorrt
    model = onnx.ModelProto.FromString(small_model())
    model.graph.node[1].op_type = "QLinearConv"
    [error] = refused(trt, logger_of(trt), model.SerializeToString())
    assert error.node() == 1
    assert "QLinearConv" in error.desc()
    assert refused(trt, logger_of(trt), b"no model")


def quantised(*, zero: Any = None, stored: Any = np.int8, scale: float = 0.05) -> bytes:
    """A quantised input and a quantised weight, multiplied."""
    weight = np.ones((4, 5), stored)
    numbers = [
        numpy_helper.from_array(np.float32(scale), "scale"),
        numpy_helper.from_array(np.int8(0) if zero is None else np.asarray(zero), "zero"),
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.zeros((), stored), "weight_zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="dequantise"),
        helper.make_node("DequantizeLinear", ["weight", "scale", "weight_zero"], ["w"], name="weights"),
        helper.make_node("MatMul", ["d", "w"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        numbers,
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    )


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"zero": np.uint8(0)}, "only int8"),
        ({"zero": np.int8(3)}, "symmetric"),
        ({"stored": np.int32}, "dequantises element type 6"),
        ({"scale": 0.0}, "positive"),
    ],
)
def test_only_symmetric_int8_is_read(double: Double, how: Any, says: str) -> None:
    errors = refused(double.tensorrt, logger_of(double.tensorrt), quantised(**how))
    assert any(says in error.desc() for error in errors)


def network_of(trt: Any, logger: Any, model: bytes) -> Any:
    builder = trt.Builder(logger)
    network = builder.create_network(1)
    assert trt.OnnxParser(network, logger).parse(model)
    return builder, network, builder.create_builder_config()


def test_a_network_that_quantises_needs_the_int8_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = install(monkeypatch, "8.2.1", board=XAVIER_NX).tensorrt
    logger = logger_of(trt)
    builder, network, config = network_of(trt, logger, quantised())
    assert builder.build_serialized_network(network, config) is None
    assert "INT8 flag is not set" in logger.errors()
    config.set_flag(trt.BuilderFlag.INT8)
    assert builder.build_serialized_network(network, config) is not None
    assert all(severity != trt.ILogger.WARNING for severity, _ in logger.lines)


def test_int8_without_ranges_is_refused_and_warned_of_where_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = install(monkeypatch, "8.2.1", board=NANO).tensorrt
    logger = logger_of(trt)
    assert build(trt, logger, small_model(), flags=("INT8",)) is None
    assert "neither a calibrator" in logger.errors()
    assert any("without fast INT8" in text for severity, text in logger.lines if severity == trt.ILogger.WARNING)


def test_a_half_layer_needs_the_fp16_flag(double: Double) -> None:
    trt = double.tensorrt
    logger = logger_of(trt)
    builder, network, config = network_of(trt, logger, quantised())
    config.set_flag(trt.BuilderFlag.INT8)
    network.get_layer(3).precision = trt.DataType.HALF
    assert builder.build_serialized_network(network, config) is None
    assert "FP16 flag is not set" in logger.errors()


def test_a_free_shape_needs_a_profile_that_fits(double: Double) -> None:
    trt = double.tensorrt
    for shapes, says in (
        (None, "no optimization profile"),
        ({"z": [(1,)] * 3, "x": [(1, *SHAPE)] * 3}, "is no input"),
        ({}, "says nothing of the dynamic input x"),
        ({"x": [(1, 3, 8, 9)] * 3}, "and the network"),
        ({"x": [(1, 3)] * 3}, "and the network"),
    ):
        logger = logger_of(trt)
        builder, network, config = network_of(trt, logger, small_model())
        if shapes is not None:
            profile = builder.create_optimization_profile()
            for name, three in shapes.items():
                profile.set_shape(name, *three)
            config.add_optimization_profile(profile)
        assert builder.build_serialized_network(network, config) is None
        assert says in logger.errors()


@pytest.mark.parametrize("shapes", [[(2,), (1,), (3,)], [(1,), (3,), (2,)], [(1,), (1, 1), (1,)], [(-1,), (1,), (1,)]])
def test_a_profile_goes_from_least_to_greatest(double: Double, shapes: Any) -> None:
    profile = double.tensorrt.Builder(logger_of(double.tensorrt)).create_optimization_profile()
    with pytest.raises(RuntimeError, match="inconsistent"):
        profile.set_shape("x", *shapes)


def test_a_network_without_outputs_is_not_built(double: Double) -> None:
    trt = double.tensorrt
    logger = logger_of(trt)
    builder = trt.Builder(logger)
    assert builder.build_serialized_network(builder.create_network(1), builder.create_builder_config()) is None
    assert "at least one output" in logger.errors()


# Plans and caches.


def test_a_plan_of_another_version_or_device_or_cut_short_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = install(monkeypatch, "8.2.1").tensorrt
    plan = bytes(build(trt, logger_of(trt), small_model()))
    broken = (("8.2.1", NANO, plan[:-1]), ("8.2.1", NANO, b"nonsense"), ("8.2.1", NANO, b""))
    foreign = (("8.5.2", NANO, plan), ("8.2.1", XAVIER_NX, plan))
    for version, board, data in (*broken, *foreign):
        other = install(monkeypatch, version, board=board).tensorrt
        logger = logger_of(other)
        assert other.Runtime(logger).deserialize_cuda_engine(data) is None
        assert logger.errors()


def test_a_timing_cache_goes_round_and_belongs_to_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = install(monkeypatch, "8.2.1").tensorrt
    logger = logger_of(trt)
    builder, network, config = network_of(trt, logger, quantised())
    assert config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    config.set_flag(trt.BuilderFlag.INT8)
    assert builder.build_serialized_network(network, config) is not None
    kept = bytes(config.get_timing_cache().serialize())
    assert b"product" in kept
    assert config.create_timing_cache(b"nonsense") is None
    other = install(monkeypatch, "8.2.1", board=XAVIER_NX).tensorrt
    config = other.Builder(logger_of(other)).create_builder_config()
    cache = config.create_timing_cache(kept)
    assert config.set_timing_cache(cache, ignore_mismatch=False) is False
    assert config.set_timing_cache(cache, ignore_mismatch=True) is True


# CUDA.


def test_pycuda_needs_a_current_context_on_the_calling_thread(rig: Rig) -> None:
    found: List[str] = []

    def elsewhere() -> None:
        for call in (rig.stream.synchronize, lambda: rig.drv.mem_alloc(4), rig.send, rig.drv.Stream):
            try:
                call()
            except rig.drv.LogicError as error:
                found.append(str(error))  # the error itself would keep the rig

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(found) == 4
    assert "invalid device context" in found[1]


def test_tensorrt_takes_the_primary_context_where_none_is_current(rig: Rig) -> None:
    rig.set_shape()
    rig.drv.memcpy_htod(rig.device_in, rig.x)
    answers: List[bool] = []
    thread = threading.Thread(target=lambda: answers.append(rig.execute()))
    thread.start()
    thread.join()
    assert answers == [True]
    assert np.isfinite(rig.receive()).all()


def test_pycuda_wants_init_first(double: Double) -> None:
    import pycuda.driver as drv

    for call in (lambda: drv.Device(0), drv.Device.count, lambda: drv.mem_alloc(4)):
        with pytest.raises(drv.LogicError, match="initialization error"):
            call()


def test_memory_ends(rig: Rig) -> None:
    with pytest.raises(rig.drv.MemoryError):
        rig.drv.mem_alloc(NANO.memory_bytes)
    assert issubclass(rig.drv.MemoryError, MemoryError)
    free, total = rig.drv.mem_get_info()
    assert 0 < free < total == NANO.memory_bytes


def test_twice_freed_is_an_error(rig: Rig) -> None:
    memory = rig.drv.mem_alloc(4)
    memory.free()
    with pytest.raises(rig.drv.LogicError):
        memory.free()


def test_only_mapped_memory_has_a_device_pointer(rig: Rig) -> None:
    with pytest.raises(rig.drv.LogicError):
        rig.host_in.base.get_device_pointer()


def test_an_engine_and_a_context_take_memory_and_fail_without(double: Double) -> None:
    rig = Rig(double)
    assert double.gpu is not None
    double.gpu.memory.capacity_bytes = double.gpu.memory.used_bytes
    assert rig.runtime.deserialize_cuda_engine(rig.plan) is None
    assert rig.new_context(own=True) is None
    assert "could not be allocated" in rig.logger.errors()
    rig.close()


@pytest.mark.parametrize("kept", ["memory", "stream", "engine", "context", "pushed", "unwaited"])
def test_what_is_left_over_is_told(double: Double, kept: str) -> None:
    rig = Rig(double)
    left: Any = None
    if kept == "memory":
        left = rig.drv.mem_alloc(4)
    elif kept == "stream":
        left = rig.drv.Stream()
    elif kept == "engine":
        left = rig.engine
    elif kept == "context":
        left = rig.context
    elif kept == "pushed":
        rig.drv.Device(0).retain_primary_context().push()
    else:
        rig.drv.memcpy_htod_async(rig.device_in, rig.host_in, None)
        rig.host_in = rig.drv.pagelocked_empty(3, np.float32)
    with contextlib.suppress(Misuse):
        rig.close()
    with pytest.raises(Misuse):
        double.assert_all_freed()
    del left


def test_without_a_device_nothing_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = install(monkeypatch, "8.2.1", board=None).tensorrt
    import pycuda.driver as drv

    with pytest.raises(drv.RuntimeError, match="no CUDA-capable device"):
        drv.init()
    with pytest.raises(TypeError, match="factory function returned nullptr"):
        trt.Builder(logger_of(trt))


@pytest.mark.parametrize(("cuda", "absent"), [("cuda-python", "pycuda"), ("pycuda", "cuda"), ("none", "pycuda")])
def test_what_was_not_chosen_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, cuda: str, absent: str) -> None:
    install(monkeypatch, "10.3.0", cuda=cuda)
    with pytest.raises(ImportError):
        __import__(absent)
