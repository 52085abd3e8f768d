"""A test double of cuda-python's runtime module on the simulated GPU: every call returns (error, value…)."""

import ctypes
import types
from typing import Any, Dict, Optional, Tuple

import numpy as np

from tests.doubles import copies
from tests.doubles.cudart_types import (
    cudaDeviceAttr,
    cudaError_t,
    cudaEvent_t,
    cudaMemcpyKind,
    cudaStream_t,
)
from tests.doubles.gpu import Gpu
from tests.doubles.streams import CudaContext, CudaStream

OK = (cudaError_t.cudaSuccess,)


class Runtime:
    """The functions. The runtime needs no context pushed: it takes the primary one."""

    def __init__(self, gpu: Optional[Gpu]) -> None:
        self._maybe = gpu

    @property
    def _gpu(self) -> Gpu:
        assert self._maybe is not None
        return self._maybe

    @property
    def _context(self) -> CudaContext:
        return self._gpu.runtime_context()

    def _queue(self, stream: Any, what: str) -> CudaStream:
        return self._gpu.stream(0 if stream is None else int(stream), what, self._context)

    def cudaGetDeviceCount(self) -> Tuple[Any, int]:
        return (cudaError_t.cudaSuccess, 1) if self._maybe is not None else (cudaError_t.cudaErrorInsufficientDriver, 0)

    def cudaGetDevice(self) -> Tuple[Any, int]:
        return cudaError_t.cudaSuccess, 0

    def cudaSetDevice(self, device: int) -> Tuple[Any]:
        return OK if device == 0 else (cudaError_t.cudaErrorInvalidDevice,)

    def cudaFree(self, devPtr: Any) -> Tuple[Any]:
        if int(devPtr) == 0:
            return OK
        block = self._gpu.memory.find(int(devPtr))
        if block is None or block.kind != "device" or block.address != int(devPtr):
            self._gpu.misuse(f"cudaFree of {int(devPtr):#x}, which cudaMalloc did not give")
            return (cudaError_t.cudaErrorInvalidValue,)
        self._gpu.free(block)
        return OK

    def cudaMalloc(self, size: int) -> Tuple[Any, int]:
        block = self._gpu.memory.allocate(size, kind="device", context=self._context, owner="cudaMalloc")
        return (cudaError_t.cudaErrorMemoryAllocation, 0) if block is None else (cudaError_t.cudaSuccess, block.address)

    def cudaMemGetInfo(self) -> Tuple[Any, int, int]:
        memory = self._gpu.memory
        return cudaError_t.cudaSuccess, memory.capacity_bytes - memory.used_bytes, memory.capacity_bytes

    def cudaHostAlloc(self, size: int, flags: int) -> Tuple[Any, int]:
        kind = "mapped" if flags & 2 else "pinned"
        block = self._gpu.memory.allocate(size, kind=kind, context=self._context, owner="cudaHostAlloc")
        if block is None:
            return cudaError_t.cudaErrorMemoryAllocation, 0
        return cudaError_t.cudaSuccess, int(block.bytes.ctypes.data)

    def cudaMallocHost(self, size: int) -> Tuple[Any, int]:
        return self.cudaHostAlloc(size, 0)

    def _host_block(self, pointer: Any) -> Any:
        hosts = [one for one in self._gpu.memory.blocks if one.kind in ("pinned", "mapped")]
        return next((one for one in hosts if one.bytes.ctypes.data == int(pointer)), None)

    def cudaFreeHost(self, ptr: Any) -> Tuple[Any]:
        block = self._host_block(ptr)
        if block is None:
            self._gpu.misuse(f"cudaFreeHost of {int(ptr):#x}, which cudaHostAlloc did not give")
            return (cudaError_t.cudaErrorInvalidValue,)
        self._gpu.free(block)
        return OK

    def cudaHostGetDevicePointer(self, pHost: Any, flags: int) -> Tuple[Any, int]:
        block = self._host_block(pHost)
        if block is None or block.kind != "mapped":
            return cudaError_t.cudaErrorInvalidValue, 0
        return cudaError_t.cudaSuccess, block.address

    def cudaMemcpy(self, dst: Any, src: Any, count: int, kind: Any) -> Tuple[Any]:
        self._copy(int(dst), int(src), count, kind, None)
        return OK

    def cudaMemcpyAsync(self, dst: Any, src: Any, count: int, kind: Any, stream: Any) -> Tuple[Any]:
        self._copy(int(dst), int(src), count, kind, self._queue(stream, "cudaMemcpyAsync"))
        return OK

    def _copy(self, dst: int, src: int, count: int, kind: Any, stream: Optional[CudaStream]) -> None:
        kinds = cudaMemcpyKind
        if not isinstance(kind, kinds):
            raise TypeError(f"a cudaMemcpyKind is wanted, not {type(kind).__name__}")
        if kind is kinds.cudaMemcpyDeviceToDevice:
            copies.on_device(self._gpu, self._context, dst, src, count, stream=stream)
            return
        host = host_view(src if kind is kinds.cudaMemcpyHostToDevice else dst, count)
        pinned = copies.is_pinned(self._gpu, host) or stream is None
        if kind is kinds.cudaMemcpyHostToDevice:
            copies.to_device(self._gpu, self._context, dst, host, None, stream=stream, pinned=pinned)
        elif kind is kinds.cudaMemcpyDeviceToHost:
            copies.to_host(self._gpu, self._context, host, None, src, stream=stream, pinned=pinned)
        else:
            raise NotImplementedError(f"the double of cuda-python does not do {kind.name}")

    def cudaMemsetAsync(self, devPtr: Any, value: int, count: int, stream: Any) -> Tuple[Any]:
        queue = self._queue(stream, "cudaMemsetAsync")
        copies.fill(self._gpu, self._context, int(devPtr), value, count, stream=queue)
        return OK

    def cudaStreamCreate(self) -> Tuple[Any, Any]:
        return cudaError_t.cudaSuccess, cudaStream_t(self._gpu.new_stream(self._context).handle)

    def cudaStreamCreateWithFlags(self, flags: int) -> Tuple[Any, Any]:
        stream = self._gpu.new_stream(self._context, blocking=not flags & 1)
        return cudaError_t.cudaSuccess, cudaStream_t(stream.handle)

    def cudaStreamDestroy(self, stream: Any) -> Tuple[Any]:
        self._gpu.destroy_stream(self._queue(stream, "cudaStreamDestroy"))
        return OK

    def cudaStreamSynchronize(self, stream: Any) -> Tuple[Any]:
        self._gpu.synchronise(self._queue(stream, "cudaStreamSynchronize"))
        return OK

    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> Tuple[Any]:
        self._gpu.wait(self._queue(stream, "cudaStreamWaitEvent"), self._gpu.events[int(event)])
        return OK

    def cudaDeviceSynchronize(self) -> Tuple[Any]:
        self._gpu.synchronise_all()
        return OK

    def cudaEventCreate(self) -> Tuple[Any, Any]:
        return cudaError_t.cudaSuccess, cudaEvent_t(self._gpu.new_event(self._context).handle)

    def cudaEventRecord(self, event: Any, stream: Any) -> Tuple[Any]:
        self._gpu.record(self._gpu.events[int(event)], self._queue(stream, "cudaEventRecord"))
        return OK

    def cudaEventSynchronize(self, event: Any) -> Tuple[Any]:
        self._gpu.synchronise_event(self._gpu.events[int(event)])
        return OK

    def cudaEventDestroy(self, event: Any) -> Tuple[Any]:
        del self._gpu.events[int(event)]
        return OK

    def cudaDeviceGetAttribute(self, attr: Any, device: int) -> Tuple[Any, int]:
        board = self._gpu.board
        known = {16: 1, 18: int(board.integrated), 19: 1, 41: 1, 75: board.compute_capability[0]}
        return cudaError_t.cudaSuccess, {**known, 76: board.compute_capability[1]}[int(cudaDeviceAttr(attr))]

    def cudaGetDeviceProperties(self, device: int) -> Tuple[Any, Any]:
        board = self._gpu.board
        major, minor = board.compute_capability
        found = types.SimpleNamespace(
            name=board.name.encode(), major=major, minor=minor, integrated=int(board.integrated), canMapHostMemory=1,
            totalGlobalMem=board.memory_bytes,
        )  # fmt: skip
        return cudaError_t.cudaSuccess, found

    def cudaRuntimeGetVersion(self) -> Tuple[Any, int]:
        return cudaError_t.cudaSuccess, 12060

    def cudaDriverGetVersion(self) -> Tuple[Any, int]:
        return cudaError_t.cudaSuccess, 12060

    def cudaGetErrorName(self, error: Any) -> Tuple[Any, bytes]:
        return cudaError_t.cudaSuccess, cudaError_t(error).name.encode()

    def cudaGetErrorString(self, error: Any) -> Tuple[Any, bytes]:
        return cudaError_t.cudaSuccess, cudaError_t(error).name.encode()


def host_view(address: int, size: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Host memory at an address, as a C pointer would see it."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def make_cudart(gpu: Optional[Gpu]) -> Dict[str, types.ModuleType]:
    """The modules under which cuda-python has its runtime, new and old.

    Args:
        gpu: None is a machine without a device or driver.
    """
    runtime = types.ModuleType("cuda.bindings.runtime")
    functions = Runtime(gpu)
    offered = {name: getattr(functions, name) for name in vars(Runtime) if name.startswith("cuda")}
    runtime.__dict__.update(
        offered, cudaError_t=cudaError_t, cudaMemcpyKind=cudaMemcpyKind, cudaDeviceAttr=cudaDeviceAttr,
        cudaStream_t=cudaStream_t, cudaEvent_t=cudaEvent_t, cudaStreamDefault=0, cudaStreamNonBlocking=1,
        cudaHostAllocDefault=0, cudaHostAllocPortable=1, cudaHostAllocMapped=2, cudaHostAllocWriteCombined=4,
    )  # fmt: skip
    package, bindings = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
    package.__dict__.update(__path__=[], bindings=bindings, cudart=runtime)
    bindings.__dict__.update(__path__=[], runtime=runtime)
    return {"cuda": package, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime, "cuda.cudart": runtime}
