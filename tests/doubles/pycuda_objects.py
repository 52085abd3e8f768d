"""Classes of the pycuda double: errors, contexts, streams, events, and memory that frees itself as pycuda's does."""

import threading
from typing import Any, Callable, Dict, Tuple

import numpy as np
from numpy.typing import NDArray

from tests.doubles.gpu import Gpu
from tests.doubles.memory import Block
from tests.doubles.streams import CudaContext

DEVICEMAP = 2


class Error(Exception):
    """pycuda's base of all CUDA errors."""


class OutOfMemory(Error, MemoryError):
    """`pycuda.driver.MemoryError`."""


class LogicError(Error):
    """CUDA was called wrongly."""


class LaunchError(Error):
    """A kernel failed."""


class OtherError(Error):
    """`pycuda.driver.RuntimeError`."""


def needed(gpu: Gpu) -> CudaContext:
    """The calling thread's context, or pycuda's error."""
    if not gpu.initialised:
        raise LogicError("cuCtxGetCurrent failed: initialization error")
    if gpu.current is None:
        raise LogicError("explicit_context_dependent failed: invalid device context - no currently active context?")
    return gpu.current


class Dependent:
    """Belongs to the context that was current when it was made; freed with that one current, or on its thread.

    Args:
        what: the thing, in complaints.
    """

    _gpu: Gpu

    def __init__(self, what: str) -> None:
        self._valid = False
        self._context, self._thread, self._what = needed(self._gpu), threading.get_ident(), what

    def _release(self, release: Callable[[], None]) -> None:
        """pycuda gives up silently, and leaks, where this complains."""
        if not self._valid:
            raise LogicError(f"{self._what}: free failed: invalid resource handle")
        if not self._context.valid:
            self._gpu.misuse(f"{self._what} freed after its context")
        elif self._gpu.current is not self._context and threading.get_ident() != self._thread:
            self._gpu.misuse(f"{self._what} freed on a thread where its context is not current: pycuda leaks it")
        release()
        self._valid = False

    def _release_at_last(self, release: Callable[[], None]) -> None:
        """In a destructor nothing may be raised; what is wrong is noted all the same."""
        if getattr(self, "_valid", False):
            try:
                self._release(release)
            except (Error, AssertionError):
                self._valid = False


class DeviceAllocation(Dependent):
    """Device memory; an integer where one is wanted."""

    def __init__(self, block: Block) -> None:
        super().__init__("device memory")
        self._block, self._valid = block, True

    def __int__(self) -> int:
        return self._block.address

    def __index__(self) -> int:
        return self._block.address

    def __hash__(self) -> int:
        return self._block.address

    def free(self) -> None:
        self._release(lambda: self._gpu.free(self._block))

    def __del__(self) -> None:
        self._release_at_last(lambda: self._gpu.free(self._block))


class PagelockedHostAllocation(Dependent):
    """What lies under an array of page-locked memory, `array.base`.

    NumPy reads `__array_interface__`, which the real one does not have, so that the array's base is this object.
    """

    def __init__(self, shape: Tuple[int, ...], dtype: "np.dtype[Any]", strides: Any, flags: int) -> None:
        super().__init__("page-locked host memory")
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        kind = "mapped" if flags & DEVICEMAP else "pinned"
        block = self._gpu.memory.allocate(size, kind=kind, context=self._context, owner=self._what)
        if block is None:
            raise OutOfMemory("cuMemHostAlloc failed: out of memory")
        self._block, self._flags, self._valid = block, flags, True
        if kind == "mapped" and dtype != np.uint8:  # bytes are of no type, as in `Block.write`
            block.tags[(0, size)] = dtype
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (block.bytes.ctypes.data, False),
            "strides": strides,
            "version": 3,
        }

    def get_device_pointer(self) -> int:
        needed(self._gpu)
        if self._block.kind != "mapped":
            raise LogicError("cuMemHostGetDevicePointer failed: invalid argument")
        return self._block.address

    def get_flags(self) -> int:
        return self._flags

    def free(self) -> None:
        self._release(lambda: self._gpu.free(self._block))

    def __del__(self) -> None:
        self._release_at_last(lambda: self._gpu.free(self._block))


class Stream(Dependent):
    """A stream of the current context; destroyed with its object."""

    def __init__(self, flags: int = 0) -> None:
        super().__init__("a stream")
        self._stream, self._valid = self._gpu.new_stream(self._context, blocking=not flags & 1), True

    @property
    def handle(self) -> int:
        return self._stream.handle

    def synchronize(self) -> None:
        needed(self._gpu)
        self._gpu.synchronise(self._stream)

    def is_done(self) -> bool:
        return not self._stream.queue

    def wait_for_event(self, evt: "Event") -> None:
        self._gpu.wait(self._stream, evt._event)

    def __del__(self) -> None:
        self._release_at_last(lambda: self._gpu.destroy_stream(self._stream))


class Event(Dependent):
    """A point in a stream. Times between two are not known here."""

    def __init__(self, flags: int = 0) -> None:
        super().__init__("an event")
        self._event = self._gpu.new_event(self._context)

    def record(self, stream: Any = None) -> "Event":
        context = needed(self._gpu)
        self._gpu.record(self._event, self._gpu.stream(0 if stream is None else stream.handle, "Event.record", context))
        return self

    def synchronize(self) -> "Event":
        self._gpu.synchronise_event(self._event)
        return self

    def query(self) -> bool:
        return self._gpu.is_reached(self._event)

    def time_since(self, event: "Event") -> float:
        raise NotImplementedError("the double of pycuda measures no time")

    time_till = time_since


class Context:
    """A context: pushed and popped per thread."""

    _gpu: Gpu

    def __init__(self, context: CudaContext) -> None:
        self._context = context

    @property
    def handle(self) -> int:
        return id(self._context)

    def push(self) -> None:
        if not self._context.valid:
            raise LogicError("cuCtxPushCurrent failed: invalid device context")
        self._gpu.stack.append(self._context)

    def detach(self) -> None:
        if not self._context.valid:
            raise LogicError("context::detach failed: invalid device context - cannot detach from invalid context")
        if self._context.primary:
            self._context.retained -= 1
            if self._context.retained > 0:
                return
            self._gpu.renew_primary()
        else:
            self._gpu.destroy_context(self._context)
        if self._gpu.stack and self._gpu.stack[-1] is self._context:
            self._gpu.stack.pop()


def bound(gpu: Gpu) -> Dict[str, Any]:
    """The classes, on one device, under pycuda's names."""
    classes = (DeviceAllocation, PagelockedHostAllocation, Stream, Event)
    found: Dict[str, Any] = {one.__name__: type(one.__name__, (one,), {"_gpu": gpu}) for one in classes}

    def pop() -> None:
        if not gpu.stack:
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        gpu.stack.pop()

    def synchronize() -> None:
        needed(gpu)
        gpu.synchronise_all()

    statics = {"pop": staticmethod(pop), "synchronize": staticmethod(synchronize)}
    found["Context"] = type("Context", (Context,), {"_gpu": gpu, **statics})
    return found


def array_over(allocation: PagelockedHostAllocation) -> NDArray[Any]:
    """The array of a page-locked allocation, whose base it is."""
    return np.asarray(allocation)
