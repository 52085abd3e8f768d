"""CUDA by pycuda. Its contexts belong to threads, so the device's primary one is pushed for as long as it is used.

That is the context TensorRT works in as well. What pycuda made is given back by name: its own clean-up does
nothing on a thread where no context is current.
"""

import contextlib
import importlib
from typing import Any, Dict, Iterator, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.engines.cuda import HostMemory
from wenet_runtime.errors import EngineError


class PycudaGpu:
    """The first GPU; see `cuda.Gpu`. Raises `ImportError` where pycuda is missing, `EngineError` without a GPU."""

    def __init__(self) -> None:
        self._driver: Any = importlib.import_module("pycuda.driver")
        with self._failures("cannot use the GPU"):
            self._driver.init()
            if not self._driver.Device.count():
                raise EngineError("no NVIDIA GPU is here: choose another --engine")
            device = self._driver.Device(0)
            self.name: str = device.name()
            major, minor = device.compute_capability()
            self.compute_capability: Tuple[int, int] = (int(major), int(minor))
            self.integrated = bool(device.get_attribute(self._driver.device_attribute.INTEGRATED))
            self._context: Any = device.retain_primary_context()
            self._allocations: Dict[int, Any] = {}
            with self.current():
                self._stream: Any = self._driver.Stream()
            self.stream = int(self._stream.handle)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """See `Gpu.current`. May be entered within itself."""
        with self._failures("cannot use the GPU on this thread"):
            self._context.push()
        try:
            yield
        finally:
            # pycuda ends the process if a thread ends with a context on its stack.
            self._driver.Context.pop()

    def free_bytes(self) -> int:
        """See `Gpu.free_bytes`."""
        with self._failures("cannot ask for the GPU's memory"):
            return int(self._driver.mem_get_info()[0])

    def allocate(self, nbytes: int) -> int:
        """See `Gpu.allocate`."""
        with self._failures(f"cannot take {nbytes} bytes of the GPU's memory"):
            allocation = self._driver.mem_alloc(nbytes)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        """See `Gpu.free`."""
        with self._failures("cannot give memory back to the GPU"):
            self._allocations.pop(address).free()

    def allocate_host(self, nbytes: int, *, mapped: bool) -> HostMemory:
        """See `Gpu.allocate_host`."""
        flags = self._driver.host_alloc_flags.DEVICEMAP if mapped else 0
        with self._failures(f"cannot take {nbytes} bytes of pinned memory"):
            array: NDArray[np.uint8] = self._driver.pagelocked_empty((nbytes,), np.uint8, mem_flags=flags)
            held: Any = array.base
            try:
                return HostMemory(array, int(held.get_device_pointer()) if mapped else 0, held)
            except self._driver.Error:
                held.free()
                raise

    def free_host(self, memory: HostMemory) -> None:
        """See `Gpu.free_host`."""
        with self._failures("cannot give pinned memory back"):
            memory.held.free()

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """See `Gpu.upload`."""
        with self._failures("cannot copy to the GPU"):
            self._driver.memcpy_htod_async(address, source, self._stream)

    def download(self, target: NDArray[Any], address: int) -> None:
        """See `Gpu.download`."""
        with self._failures("cannot copy from the GPU"):
            self._driver.memcpy_dtoh_async(target, address, self._stream)

    def fetch(self, target: NDArray[Any], address: int) -> None:
        """See `Gpu.fetch`."""
        with self._failures("cannot copy from the GPU"):
            self._driver.memcpy_dtoh(target, address)

    def synchronize(self) -> None:
        """See `Gpu.synchronize`."""
        with self._failures("the GPU failed"):
            self._stream.synchronize()

    def close(self) -> None:
        """See `Gpu.close`. The primary context goes with this object; others in this process may still use it."""
        if self._stream is not None:
            with self.current():
                self._stream = None

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise EngineError(f"{what}: {error}") from error
