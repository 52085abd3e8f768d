"""Copies between host and device, for both CUDA doubles: checked when asked for, done when waited for."""

from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from tests.doubles.gpu import Gpu
from tests.doubles.memory import POISON
from tests.doubles.streams import CudaContext, CudaStream


def is_pinned(gpu: Gpu, host: NDArray[np.uint8]) -> bool:
    """Whether host bytes lie in page-locked memory; memory that was page-locked and freed is a misuse."""
    start, end = host.ctypes.data, host.ctypes.data + host.size
    for block in gpu.memory.blocks:
        if block.kind in ("pinned", "mapped"):
            first = block.bytes.ctypes.data
            if first <= start and end <= first + block.size:
                if block.freed:
                    gpu.misuse("page-locked host memory is used after it was freed")
                return True
    return False


def to_device(
    gpu: Gpu,
    context: CudaContext,
    address: int,
    source: NDArray[np.uint8],
    dtype: "Optional[np.dtype[Any]]",
    *,
    stream: Optional[CudaStream],
    pinned: bool,
) -> None:
    """Copy bytes to the device; at once without a stream."""
    block, offset = gpu.resolve(address, source.size, "copy to the device", context)
    if stream is None:
        gpu.synchronise(gpu.stream(0, "copy to the device", context))
        block.write(offset, source, dtype)
        return
    if not pinned:
        gpu.misuse("an asynchronous copy to the device from memory that is not page-locked")
    before = source.copy()

    def run() -> None:
        gpu.resolve(address, source.size, "copy to the device", context)
        if not np.array_equal(before, source):
            gpu.misuse("the source of a copy to the device changed before the copy was waited for")
        block.write(offset, source, dtype)

    gpu.enqueue(stream, f"copy of {source.size} bytes to the device", run, writes=[(address, address + source.size)])


def to_host(
    gpu: Gpu,
    context: CudaContext,
    target: NDArray[np.uint8],
    dtype: "Optional[np.dtype[Any]]",
    address: int,
    *,
    stream: Optional[CudaStream],
    pinned: bool,
) -> None:
    """Copy bytes from the device; what the target holds until then is poison."""
    block, offset = gpu.resolve(address, target.size, "copy to the host", context)

    def run() -> None:
        gpu.resolve(address, target.size, "copy to the host", context)
        for known in block.types(offset, target.size):
            if dtype is not None and dtype not in (known, np.dtype(np.uint8)):
                gpu.misuse(f"a copy to the host takes {known} for {dtype}")
        target[:] = block.bytes[offset : offset + target.size]

    if stream is None:
        gpu.synchronise(gpu.stream(0, "copy to the host", context))
        run()
        return
    if not pinned:
        gpu.misuse("an asynchronous copy to the host into memory that is not page-locked")
    target[:] = POISON
    gpu.enqueue(stream, f"copy of {target.size} bytes to the host", run, reads=[(address, address + target.size)])


def on_device(
    gpu: Gpu, context: CudaContext, target: int, source: int, size: int, *, stream: Optional[CudaStream]
) -> None:
    """Copy bytes from the device to the device."""
    into, at = gpu.resolve(target, size, "copy on the device", context)
    out_of, start = gpu.resolve(source, size, "copy on the device", context)

    def run() -> None:
        gpu.resolve(target, size, "copy on the device", context)
        gpu.resolve(source, size, "copy on the device", context)
        into.write(at, out_of.bytes[start : start + size].copy(), None)

    if stream is None:
        gpu.synchronise(gpu.stream(0, "copy on the device", context))
        run()
    else:
        ranges = [(source, source + size)], [(target, target + size)]
        gpu.enqueue(stream, f"copy of {size} bytes on the device", run, reads=ranges[0], writes=ranges[1])


def fill(gpu: Gpu, context: CudaContext, address: int, value: int, size: int, *, stream: Optional[CudaStream]) -> None:
    """Set bytes on the device."""
    block, offset = gpu.resolve(address, size, "memset", context)

    def run() -> None:
        gpu.resolve(address, size, "memset", context)
        block.write(offset, np.full(size, value, np.uint8), None)

    if stream is None:
        gpu.synchronise(gpu.stream(0, "memset", context))
        run()
    else:
        gpu.enqueue(stream, f"memset of {size} bytes", run, writes=[(address, address + size)])
