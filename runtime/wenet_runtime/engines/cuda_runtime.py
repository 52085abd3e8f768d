"""CUDA by NVIDIA's own cuda-python. Its runtime makes the device's primary context current by itself."""

import contextlib
import ctypes
import importlib
from typing import Any, Iterator, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.engines.cuda import HostMemory
from wenet_runtime.errors import EngineError

MODULES = ("cuda.bindings.runtime", "cuda.cudart")  # since 12.8, and before


class RuntimeGpu:
    """The first GPU; see `cuda.Gpu`. Raises `ImportError` without cuda-python, `EngineError` without a GPU."""

    def __init__(self) -> None:
        self._runtime: Any = _import_runtime()
        count = self._call("cannot use the GPU", "cudaGetDeviceCount")
        if not count:
            raise EngineError("no NVIDIA GPU is here: choose another --engine")
        properties = self._call("cannot ask what the GPU is", "cudaGetDeviceProperties", 0)
        name = properties.name
        self.name: str = name.decode(errors="replace").rstrip("\0") if isinstance(name, bytes) else str(name)
        self.compute_capability: Tuple[int, int] = (int(properties.major), int(properties.minor))
        self.integrated = bool(properties.integrated)
        with self.current():
            self._stream: Any = self._call("cannot use the GPU", "cudaStreamCreate")
        self.stream = int(self._stream)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """See `Gpu.current`."""
        self._call("cannot use the GPU on this thread", "cudaSetDevice", 0)
        yield

    def free_bytes(self) -> int:
        """See `Gpu.free_bytes`."""
        free, _ = self._call("cannot ask for the GPU's memory", "cudaMemGetInfo")
        return int(free)

    def allocate(self, nbytes: int) -> int:
        """See `Gpu.allocate`."""
        return int(self._call(f"cannot take {nbytes} bytes of the GPU's memory", "cudaMalloc", nbytes))

    def free(self, address: int) -> None:
        """See `Gpu.free`."""
        self._call("cannot give memory back to the GPU", "cudaFree", address)

    def allocate_host(self, nbytes: int, *, mapped: bool) -> HostMemory:
        """See `Gpu.allocate_host`."""
        flags = self._runtime.cudaHostAllocMapped if mapped else self._runtime.cudaHostAllocDefault
        place = int(self._call(f"cannot take {nbytes} bytes of pinned memory", "cudaHostAlloc", nbytes, flags))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(place))
        address = 0
        if mapped:
            try:
                address = int(self._call("cannot map pinned memory", "cudaHostGetDevicePointer", place, 0))
            except EngineError:
                self._call("cannot give pinned memory back", "cudaFreeHost", place)
                raise
        return HostMemory(array, address, place)

    def free_host(self, memory: HostMemory) -> None:
        """See `Gpu.free_host`."""
        self._call("cannot give pinned memory back", "cudaFreeHost", memory.held)

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """See `Gpu.upload`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        place = source.ctypes.data
        self._call("cannot copy to the GPU", "cudaMemcpyAsync", address, place, source.nbytes, kind, self._stream)

    def download(self, target: NDArray[Any], address: int) -> None:
        """See `Gpu.download`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        place = target.ctypes.data
        self._call("cannot copy from the GPU", "cudaMemcpyAsync", place, address, target.nbytes, kind, self._stream)

    def fetch(self, target: NDArray[Any], address: int) -> None:
        """See `Gpu.fetch`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cannot copy from the GPU", "cudaMemcpy", target.ctypes.data, address, target.nbytes, kind)

    def synchronize(self) -> None:
        """See `Gpu.synchronize`."""
        self._call("the GPU failed", "cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """See `Gpu.close`."""
        if self._stream is not None:
            with self.current():
                self._call("cannot give the stream back", "cudaStreamDestroy", self._stream)
            self._stream = None

    def _call(self, what: str, function: str, *arguments: Any) -> Any:
        """What a function of the runtime returns behind its error code: nothing, one value or a tuple."""
        try:
            error, *values = getattr(self._runtime, function)(*arguments)
        except RuntimeError as failure:  # the driver's library itself cannot be loaded
            raise EngineError(f"{what}: {failure}") from failure
        if int(error) != 0:
            raise EngineError(f"{what}: {error.name} ({function})")
        return values[0] if len(values) == 1 else tuple(values)


def _import_runtime() -> Any:
    newer, older = MODULES
    try:
        return importlib.import_module(newer)
    except ImportError:
        return importlib.import_module(older)
