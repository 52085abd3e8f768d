"""A test double of pycuda 2022.1: `pycuda` and `pycuda.driver` on the simulated GPU. No measurement comes from it."""

import types
from typing import Any, Dict, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from tests.doubles import copies
from tests.doubles.gpu import Gpu
from tests.doubles.pycuda_objects import (
    Error,
    LaunchError,
    LogicError,
    OtherError,
    OutOfMemory,
    Stream,
    array_over,
    bound,
    needed,
)
from tests.doubles.streams import CudaContext, CudaStream


class ctx_flags:
    SCHED_AUTO, SCHED_SPIN, SCHED_YIELD, SCHED_BLOCKING_SYNC, MAP_HOST = 0, 1, 2, 4, 8


class host_alloc_flags:
    PORTABLE, DEVICEMAP, WRITECOMBINED = 1, 2, 4


class event_flags:
    DEFAULT, BLOCKING_SYNC, DISABLE_TIMING, INTERPROCESS = 0, 1, 2, 4


class device_attribute:
    MULTIPROCESSOR_COUNT, INTEGRATED, CAN_MAP_HOST_MEMORY, UNIFIED_ADDRESSING = 16, 18, 19, 41
    COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76


def address_of(thing: Any) -> int:
    """A device address: a plain integer or what holds memory. Anything else is an error, as in Boost.Python."""
    if isinstance(thing, (int, np.integer)) or hasattr(thing, "_block"):
        return int(thing)
    raise TypeError(f"no registered converter was able to produce a CUdeviceptr from {type(thing).__name__}")


def host_bytes(thing: Any, *, writable: bool) -> Tuple[NDArray[np.uint8], "Optional[np.dtype[Any]]"]:
    """A host object's own bytes, and the type of its numbers if it says."""
    view = memoryview(thing)
    if not view.c_contiguous:
        raise ValueError("ndarray is not C-contiguous")
    if writable and view.readonly:
        raise BufferError("Object is not writable.")
    dtype = thing.dtype if isinstance(thing, np.ndarray) else None
    return (np.frombuffer(thing, np.uint8) if view.nbytes else np.zeros(0, np.uint8)), dtype


class Functions:
    """The functions of `pycuda.driver`, on one device."""

    def __init__(self, gpu: Gpu, classes: Dict[str, Any]) -> None:
        self._gpu, self._classes = gpu, classes

    def init(self, flags: int = 0) -> None:
        self._gpu.initialised = True

    def get_version(self) -> Tuple[int, int, int]:
        return (10, 2, 0)

    def get_driver_version(self) -> int:
        return 10020

    def mem_alloc(self, bytes: int) -> Any:
        context = needed(self._gpu)
        if not isinstance(bytes, int):
            raise TypeError(f"mem_alloc takes an int, not {type(bytes).__name__}")
        if bytes <= 0:
            raise LogicError("cuMemAlloc failed: invalid argument")
        block = self._gpu.memory.allocate(bytes, kind="device", context=context, owner="pycuda.driver.mem_alloc")
        if block is None:
            raise OutOfMemory("cuMemAlloc failed: out of memory")
        return self._classes["DeviceAllocation"](block)

    def mem_get_info(self) -> Tuple[int, int]:
        needed(self._gpu)
        return self._gpu.memory.capacity_bytes - self._gpu.memory.used_bytes, self._gpu.memory.capacity_bytes

    def pagelocked_empty(self, shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> NDArray[Any]:
        dims = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(one) for one in shape)
        if 0 in dims:
            raise LogicError("cuMemHostAlloc failed: invalid argument")
        strides = None if order == "C" else np.empty(dims, dtype, order).strides  # type: ignore[call-overload]
        return array_over(self._classes["PagelockedHostAllocation"](dims, np.dtype(dtype), strides, int(mem_flags)))

    def pagelocked_zeros(self, shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> NDArray[Any]:
        result = self.pagelocked_empty(shape, dtype, order, mem_flags)
        result.fill(0)
        return result

    def _queue(self, stream: Any, what: str) -> Tuple[CudaContext, CudaStream]:
        context = needed(self._gpu)
        if stream is not None and not isinstance(stream, Stream):
            raise TypeError(f"{what}: a pycuda.driver.Stream is wanted, not {type(stream).__name__}")
        return context, self._gpu.stream(0 if stream is None else stream.handle, what, context)

    def memcpy_htod(self, dest: Any, src: Any) -> None:
        source, dtype = host_bytes(src, writable=False)
        copies.to_device(self._gpu, needed(self._gpu), address_of(dest), source, dtype, stream=None, pinned=True)

    def memcpy_htod_async(self, dest: Any, src: Any, stream: Any = None) -> None:
        context, queue = self._queue(stream, "memcpy_htod_async")
        source, dtype = host_bytes(src, writable=False)
        pinned = copies.is_pinned(self._gpu, source)
        copies.to_device(self._gpu, context, address_of(dest), source, dtype, stream=queue, pinned=pinned)

    def memcpy_dtoh(self, dest: Any, src: Any) -> None:
        target, dtype = host_bytes(dest, writable=True)
        copies.to_host(self._gpu, needed(self._gpu), target, dtype, address_of(src), stream=None, pinned=True)

    def memcpy_dtoh_async(self, dest: Any, src: Any, stream: Any = None) -> None:
        context, queue = self._queue(stream, "memcpy_dtoh_async")
        target, dtype = host_bytes(dest, writable=True)
        pinned = copies.is_pinned(self._gpu, target)
        copies.to_host(self._gpu, context, target, dtype, address_of(src), stream=queue, pinned=pinned)

    def memcpy_dtod(self, dest: Any, src: Any, size: int) -> None:
        copies.on_device(self._gpu, needed(self._gpu), address_of(dest), address_of(src), size, stream=None)

    def memcpy_dtod_async(self, dest: Any, src: Any, size: int, stream: Any = None) -> None:
        context, queue = self._queue(stream, "memcpy_dtod_async")
        copies.on_device(self._gpu, context, address_of(dest), address_of(src), size, stream=queue)

    def memset_d8(self, dest: Any, data: int, count: int) -> None:
        copies.fill(self._gpu, needed(self._gpu), address_of(dest), data, count, stream=None)

    def memset_d8_async(self, dest: Any, data: int, count: int, stream: Any = None) -> None:
        context, queue = self._queue(stream, "memset_d8_async")
        copies.fill(self._gpu, context, address_of(dest), data, count, stream=queue)


def device_class(gpu: Gpu, context_class: Any) -> type:
    """`pycuda.driver.Device`, of which there is one."""

    class Device:
        def __init__(self, number: int) -> None:
            if not gpu.initialised:
                raise LogicError("cuDeviceGet failed: initialization error")
            if number != 0:
                raise LogicError("cuDeviceGet failed: invalid device ordinal")

        @staticmethod
        def count() -> int:
            if not gpu.initialised:
                raise LogicError("cuDeviceGetCount failed: initialization error")
            return 1

        def name(self) -> str:
            return gpu.board.name

        def compute_capability(self) -> Tuple[int, int]:
            return gpu.board.compute_capability

        def total_memory(self) -> int:
            return gpu.board.memory_bytes

        def get_attribute(self, attr: int) -> int:
            major, minor = gpu.board.compute_capability
            known = {16: 1, 18: int(gpu.board.integrated), 19: 1, 41: 1, 75: major, 76: minor}
            if attr not in known:
                raise NotImplementedError(f"the double of pycuda knows no device attribute {attr}")
            return known[attr]

        def retain_primary_context(self) -> Any:
            gpu.primary.retained += 1
            return context_class(gpu.primary)

        def make_context(self, flags: int = 0) -> Any:
            context = context_class(CudaContext(primary=False))
            context.push()
            return context

    return Device


def make_pycuda(gpu: Optional[Gpu]) -> Tuple[types.ModuleType, types.ModuleType]:
    """The modules `pycuda` and `pycuda.driver`.

    Args:
        gpu: None is a machine with the driver's library and no device.
    """
    package, driver = types.ModuleType("pycuda"), types.ModuleType("pycuda.driver")
    package.__dict__.update(__path__=[], driver=driver, VERSION=(2022, 1), VERSION_TEXT="2022.1")
    driver.__dict__.update(
        Error=Error, MemoryError=OutOfMemory, LogicError=LogicError, LaunchError=LaunchError, RuntimeError=OtherError,
        ctx_flags=ctx_flags, host_alloc_flags=host_alloc_flags, event_flags=event_flags,
        device_attribute=device_attribute,
    )  # fmt: skip
    if gpu is None:
        driver.init = no_device  # type: ignore[attr-defined]
        return package, driver
    classes = bound(gpu)
    functions = Functions(gpu, classes)
    offered = {name: getattr(functions, name) for name in vars(Functions) if not name.startswith("_")}
    driver.__dict__.update(classes, Device=device_class(gpu, classes["Context"]), **offered)
    return package, driver


def no_device(flags: int = 0) -> None:
    """`pycuda.driver.init` on a machine without a GPU."""
    raise OtherError("cuInit failed: no CUDA-capable device is detected")
