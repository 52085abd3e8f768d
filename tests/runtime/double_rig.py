"""What tests of the TensorRT double share: a small model, a logger that keeps its lines, a build, a loaded engine."""

import ctypes
from typing import Any, Optional, Tuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.doubles.install import Double

SHAPE = (3, 8, 8)


def small_model(*, opset: int = 13) -> bytes:
    """A convolution, an activation, a pooling and a matrix product, with a free batch."""
    random = np.random.default_rng(5)
    weight = random.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    dense = random.normal(0, 0.3, (4, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"], name="conv", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["d"], name="flatten"),
        helper.make_node("MatMul", ["d", "dense"], ["y"], name="dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(dense, "dense")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(model.SerializeToString())


def expected(model: bytes, x: NDArray[Any]) -> NDArray[Any]:
    """ONNX Runtime's own answer."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    answer: NDArray[Any] = session.run(None, {"x": x})[0]
    return answer


def logger_of(trt: Any) -> Any:
    """A logger that keeps what it is told."""

    class Keeper(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[Tuple[Any, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            self.lines.append((severity, msg))

        def errors(self) -> str:
            return "\n".join(text for severity, text in self.lines if severity <= trt.ILogger.Severity.ERROR)

    return Keeper()


def build(trt: Any, logger: Any, model: bytes, *, flags: Tuple[str, ...] = (), batch: int = 4) -> Any:
    """A plan for batches of 1 to `batch`."""
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model), [parser.get_error(index).desc() for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 28)
    else:
        config.max_workspace_size = 1 << 28
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (1, *SHAPE), (batch, *SHAPE), (batch, *SHAPE))
    assert config.add_optimization_profile(profile) == 0
    return builder.build_serialized_network(network, config)


def capsule(address: int) -> Any:
    """A PyCapsule around an address, as TensorRT before 8.5 wants it."""
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return make(address, None, None)


class Rig:
    """An engine of the small model on the double with pycuda, and what one run needs, each part for a test to spoil.

    Args:
        double: installed, with pycuda.
        own: whether the context has device memory of its own.
        batch: what buffers and shapes are made for.
    """

    def __init__(self, double: Double, *, own: bool = True, batch: int = 2) -> None:
        import pycuda.driver as drv

        self.double, self.trt, self.drv, self.batch = double, double.tensorrt, drv, batch
        drv.init()
        self.cuda = drv.Device(0).retain_primary_context()
        self.cuda.push()
        self.logger = logger_of(self.trt)
        self.plan = bytes(build(self.trt, self.logger, small_model()))
        self.runtime = self.trt.Runtime(self.logger)
        self.engine = self.runtime.deserialize_cuda_engine(self.plan)
        self.named = hasattr(self.engine, "num_io_tensors")
        self.context = self.new_context(own=own)
        self.stream = drv.Stream()
        self.x = np.random.default_rng(3).normal(size=(batch, *SHAPE)).astype(np.float32)
        self.host_in = drv.pagelocked_empty(self.x.shape, np.float32)
        self.host_out = drv.pagelocked_empty((batch, 5), np.float32)
        self.host_in[:] = self.x
        self.device_in, self.device_out = drv.mem_alloc(self.host_in.nbytes), drv.mem_alloc(self.host_out.nbytes)

    @property
    def memory_size(self) -> int:
        size: int = self.engine.device_memory_size
        return size

    def new_context(self, *, own: bool) -> Any:
        if own:
            return self.engine.create_execution_context()
        return self.engine.create_execution_context_without_device_memory()

    def set_memory(self, address: int, context: Optional[Any] = None) -> None:
        """Device memory as this version takes it."""
        context = self.context if context is None else context
        context.device_memory = address if self.named else capsule(address)

    def set_shape(self, shape: Optional[Tuple[int, ...]] = None, context: Optional[Any] = None) -> bool:
        context, shape = self.context if context is None else context, self.x.shape if shape is None else shape
        done: bool = context.set_input_shape("x", shape) if self.named else context.set_binding_shape(0, shape)
        return done

    def send(self) -> None:
        self.drv.memcpy_htod_async(self.device_in, self.host_in, self.stream)

    def execute(self, *, x: Optional[int] = None, y: Optional[int] = None, **how: Any) -> bool:
        """Queue an execution; addresses, stream and context can be others than the rig's."""
        context, stream = how.get("context", self.context), how.get("stream", self.stream.handle)
        addresses = [int(self.device_in) if x is None else x, int(self.device_out) if y is None else y]
        done: bool
        if self.named:
            for name, address in zip("xy", addresses):
                context.set_tensor_address(name, address)
            done = context.execute_async_v3(stream)
        else:
            done = context.execute_async_v2(addresses, stream)
        return done

    def receive(self) -> NDArray[Any]:
        self.drv.memcpy_dtoh_async(self.host_out, self.device_out, self.stream)
        self.stream.synchronize()
        answer: NDArray[Any] = self.host_out
        return answer

    def close(self) -> None:
        """Free everything in the right order."""
        self.stream.synchronize()
        self.context = self.engine = self.runtime = None
        for one in (self.device_in, self.device_out, self.host_in.base, self.host_out.base):
            one.free()
        self.stream = None
        self.cuda.pop()
        self.cuda.detach()
