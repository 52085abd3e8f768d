"""The doubles' happy path: parse, build, load, run, free, on both of TensorRT's interfaces and both CUDA layers."""

import ctypes
import sys
from typing import Any, Dict, Iterator

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.doubles.board import DISCRETE, ORIN_NANO
from tests.doubles.install import Double, install
from tests.doubles.tensorrt_double.names import VERSIONS
from tests.doubles.tensorrt_double.plan import unpack
from tests.runtime.double_rig import SHAPE, build, capsule, expected, logger_of, small_model


@pytest.fixture(params=VERSIONS)
def double(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """Each version in turn, on a Nano, with pycuda; everything must be freed at the end."""
    one = install(monkeypatch, request.param)
    yield one
    one.assert_all_freed()


def run_with_pycuda(trt: Any, drv: Any, engine: Any, x: NDArray[Any]) -> NDArray[Any]:
    """One inference with everything explicit; frees what it takes."""
    named = hasattr(engine, "num_io_tensors")
    stream = drv.Stream()
    host_in, host_out = drv.pagelocked_empty(x.shape, np.float32), drv.pagelocked_empty((len(x), 5), np.float32)
    host_in[:] = x
    device_in, device_out = drv.mem_alloc(host_in.nbytes), drv.mem_alloc(host_out.nbytes)
    size = engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
    block = drv.mem_alloc(size)
    if hasattr(trt, "ExecutionContextAllocationStrategy"):
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    else:
        context = engine.create_execution_context_without_device_memory()
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(int(block), size)
    elif named:
        context.device_memory = int(block)
    else:
        context.device_memory = capsule(int(block))
    drv.memcpy_htod_async(device_in, host_in, stream)
    if named:
        assert context.set_input_shape("x", x.shape)
        assert tuple(context.get_tensor_shape("y")) == (len(x), 5)
        assert context.set_tensor_address("x", int(device_in))
        assert context.set_tensor_address("y", int(device_out))
        assert context.execute_async_v3(stream.handle)
    else:
        assert context.set_binding_shape(0, x.shape)
        assert tuple(context.get_binding_shape(1)) == (len(x), 5)
        assert context.all_binding_shapes_specified
        assert context.execute_async_v2([int(device_in), int(device_out)], stream.handle)
    drv.memcpy_dtoh_async(host_out, device_out, stream)
    assert np.isnan(host_out).all(), "nothing was waited for, so nothing may be there"
    stream.synchronize()
    answer: NDArray[Any] = host_out.copy()
    for one in (device_in, device_out, block, host_in.base, host_out.base):
        one.free()
    return answer


def test_a_model_runs_as_onnx_runtime_runs_it_in_every_version(double: Double) -> None:
    import pycuda.driver as drv

    trt, model = double.tensorrt, small_model()
    assert sys.modules["tensorrt"] is trt
    drv.init()
    cuda = drv.Device(0).retain_primary_context()
    cuda.push()
    logger = logger_of(trt)
    plan = build(trt, logger, model)
    assert plan.nbytes == len(bytes(plan))
    engine = trt.Runtime(logger).deserialize_cuda_engine(bytes(plan))
    x = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
    np.testing.assert_array_equal(run_with_pycuda(trt, drv, engine, x), expected(model, x))
    del engine
    cuda.pop()
    cuda.detach()
    assert logger.errors() == ""


@pytest.mark.parametrize("board", [ORIN_NANO, DISCRETE], ids=["orin", "discrete"])
def test_a_model_runs_on_cuda_python(monkeypatch: pytest.MonkeyPatch, board: Any) -> None:
    double = install(monkeypatch, "10.3.0", board=board, cuda="cuda-python")
    from cuda.bindings import runtime as cudart

    def good(answer: Any) -> Any:
        assert answer[0] == cudart.cudaError_t.cudaSuccess
        return answer[1] if len(answer) == 2 else answer[1:]

    trt, model = double.tensorrt, small_model()
    logger = logger_of(trt)
    engine = trt.Runtime(logger).deserialize_cuda_engine(build(trt, logger, model))
    x = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    stream = good(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))
    host = good(cudart.cudaHostAlloc(x.nbytes, cudart.cudaHostAllocDefault))
    back = good(cudart.cudaHostAlloc(60, cudart.cudaHostAllocMapped))
    inside, outside = good(cudart.cudaMalloc(x.nbytes)), good(cudart.cudaHostGetDevicePointer(back, 0))
    np.ctypeslib.as_array((ctypes.c_float * x.size).from_address(host))[:] = x.ravel()
    to_device = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
    good(cudart.cudaMemcpyAsync(inside, host, x.nbytes, to_device, stream))
    context = engine.create_execution_context()
    context.set_input_shape("x", list(x.shape))
    context.set_tensor_address("x", inside)
    context.set_tensor_address("y", outside)
    assert context.execute_async_v3(int(stream))
    view = np.ctypeslib.as_array((ctypes.c_float * 15).from_address(back)).reshape(3, 5)
    assert np.isnan(view).all()
    good(cudart.cudaStreamSynchronize(stream))
    np.testing.assert_array_equal(view, expected(model, x))
    good(cudart.cudaFree(inside))
    good(cudart.cudaFreeHost(host))
    good(cudart.cudaFreeHost(back))
    good(cudart.cudaStreamDestroy(stream))
    del context, engine
    double.assert_all_freed()
    assert ("IExecutionContext", "execute_async_v3") in double.touched


@pytest.mark.parametrize("pins", ["none", "all", "all, and nobody obeys"])
def test_with_the_fp16_flag_weights_are_rounded_but_for_layers_that_are_pinned(
    monkeypatch: pytest.MonkeyPatch, pins: str
) -> None:
    double = install(monkeypatch, "8.2.1")
    trt, logger = double.tensorrt, logger_of(double.tensorrt)
    builder = trt.Builder(logger)
    network = builder.create_network(1)
    assert trt.OnnxParser(network, logger).parse(small_model())
    config = builder.create_builder_config()
    config.max_workspace_size = 1 << 28
    config.set_flag(trt.BuilderFlag.FP16)
    if pins != "none":
        for index in range(network.num_layers):
            network.get_layer(index).precision = trt.DataType.FLOAT
    if pins == "all":
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    profile = builder.create_optimization_profile()
    profile.set_shape("x", *((1, *SHAPE),) * 3)
    config.add_optimization_profile(profile)
    found = unpack(bytes(builder.build_serialized_network(network, config)))
    assert found is not None
    x = np.random.default_rng(2).normal(size=(1, *SHAPE)).astype(np.float32)
    exact = np.array_equal(expected(found[1], x), expected(small_model(), x))
    assert exact is (pins == "all")
    np.testing.assert_allclose(expected(found[1], x), expected(small_model(), x), atol=1e-2)
    assert double.built[0]["workspace_bytes"] == 1 << 28
    assert double.built[0]["pinned"].get("conv") == (None if pins == "none" else "FLOAT")


def test_each_profile_has_its_own_bindings_before_10(monkeypatch: pytest.MonkeyPatch) -> None:
    double = install(monkeypatch, "8.2.1")
    trt, logger = double.tensorrt, logger_of(double.tensorrt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    assert trt.OnnxParser(network, logger).parse(small_model())
    config = builder.create_builder_config()
    for batch in (1, 4):
        profile = builder.create_optimization_profile()
        profile.set_shape("x", *((batch, *SHAPE),) * 3)
        config.add_optimization_profile(profile)
    engine = trt.Runtime(logger).deserialize_cuda_engine(builder.build_serialized_network(network, config))
    names = [engine.get_binding_name(index) for index in range(engine.num_bindings)]
    assert names == ["x", "y", "x [profile 1]", "y [profile 1]"]
    assert [tuple(shape) for shape in engine.get_profile_shape(1, "x [profile 1]")] == [(4, *SHAPE)] * 3
    assert [engine.binding_is_input(name) for name in names] == [True, False, True, False]
    context = engine.create_execution_context()
    assert context.set_binding_shape(0, (1, *SHAPE))
    assert context.set_binding_shape(2, (4, *SHAPE)) is False, "that is the other profile's"
    assert "belongs to profile 1, and 0 is active" in logger.errors()
    with pytest.raises(AttributeError):
        context.active_optimization_profile = 1
    del context, engine
    double.assert_all_freed()


def layer_kinds(trt: Any, network: Any) -> Dict[str, Any]:
    return {network.get_layer(index).name: network.get_layer(index).type for index in range(network.num_layers)}


def test_a_network_has_a_layer_for_every_node(double: Double) -> None:
    trt = double.tensorrt
    builder = trt.Builder(logger_of(trt))
    network = builder.create_network(1)
    assert trt.OnnxParser(network, builder.logger).parse(small_model())
    kinds = layer_kinds(trt, network)
    assert kinds["conv"] == trt.LayerType.CONVOLUTION
    assert kinds["dense"] == trt.LayerType.MATRIX_MULTIPLY
    assert tuple(network.get_input(0).shape) == (-1, *SHAPE)
    assert network.get_output(0).dtype == trt.float32
    layer = network.get_layer(0)
    assert not layer.precision_is_set
    layer.precision = trt.DataType.HALF
    assert layer.precision_is_set


def test_onnx_of_tests_is_what_8_2_takes() -> None:
    assert onnx.ModelProto.FromString(small_model()).ir_version == 8
