"""Memory that all modes of a TensorRT backend share, since only one of them runs at a time."""

import logging
from typing import Any, Dict, Optional

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.engines.cuda import MAPPED, PAGEABLE, PINNED, Gpu, HostMemory
from wenet_runtime.errors import EngineError

ALIGNMENT = 256  # bytes, as TensorRT wants its memory; CUDA's allocations begin at such a place
MB = 1 << 20

_LOG = logging.getLogger(__name__)


class Block:
    """The GPU memory in which modes keep what they compute: as much as the largest of them needs.

    Sharing one block is what lets many modes be loaded on a board with little memory. It is legal only while no
    two modes run at the same time.

    Args:
        gpu: its owner.

    Attributes:
        address, size: where it is now; it moves when it grows.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.address = 0
        self.size = 0

    def ensure(self, nbytes: int) -> None:
        """Have at least so many bytes. Nothing may run on the block, and the GPU must be current.

        Raises:
            EngineError: the GPU has not so much left. The block is as large as before then, or gone.
        """
        wanted = max(-(-nbytes // ALIGNMENT) * ALIGNMENT, ALIGNMENT)
        if wanted <= self.size:
            return
        before = self.size
        self.close()  # first: a small board has no room for both
        try:
            self._take(wanted)
        except EngineError as error:
            free = self._gpu.free_bytes()
            if before:
                self._take(before)
            raise EngineError(
                f"a mode needs {wanted / MB:.3g} MB of the GPU's memory to compute in, {free / MB:.3g} MB "
                f"are left ({error}): stop other programs, or serve fewer modes at a time with --memory-mb"
            ) from error

    def _take(self, nbytes: int) -> None:
        self.address = self._gpu.allocate(nbytes)
        self.size = nbytes

    def close(self) -> None:
        """Give it back."""
        if self.size:
            self._gpu.free(self.address)
        self.address = self.size = 0


class Passage:
    """One tensor's way between the CPU and the GPU. Modes have the same inputs and outputs, so they share it.

    Args:
        gpu: where to.
        kind: `MAPPED`, `PINNED` or `PAGEABLE`; see `cuda.Transfer`. `PINNED` takes the place of what cannot be mapped.

    Attributes:
        address: where the GPU finds the tensor; it moves when the passage grows.
    """

    def __init__(self, gpu: Gpu, kind: str) -> None:
        self._gpu = gpu
        self._kind = kind
        self._size = 0
        self._host: Optional[HostMemory] = None
        self.address = 0

    def reserve(self, nbytes: int) -> None:
        """Have room for so many bytes. Nothing may be in flight."""
        if nbytes <= self._size:
            return
        self.close()
        if self._kind != PAGEABLE:
            self._host = self._host_memory(nbytes)
            self.address = self._host.address
        if self._kind != MAPPED:
            self.address = self._gpu.allocate(nbytes)
        self._size = nbytes

    def _host_memory(self, nbytes: int) -> HostMemory:
        try:
            return self._gpu.allocate_host(nbytes, mapped=self._kind == MAPPED)
        except EngineError as error:
            if self._kind != MAPPED:
                raise
            # Whether a board maps memory without asking its context for it first is not told: copies work anywhere.
            memory = self._gpu.allocate_host(nbytes, mapped=False)
            self._kind = PINNED
            _LOG.warning("tensors are copied to the GPU and back, because memory cannot be mapped: %s", str(error))
            return memory

    def write(self, value: NDArray[Any]) -> None:
        """Begin to bring an input to the GPU: written once and in order, whatever the value's own layout is."""
        assert self._host is not None, "an input passes through memory of the CPU"
        place = _as(self._host, value)
        np.copyto(place, value, casting="no")
        if self._kind == PINNED:
            self._gpu.upload(self.address, place)

    def read(self, target: NDArray[Any]) -> None:
        """Begin to bring an output to the CPU, behind what computes it."""
        if self._kind == PINNED:
            assert self._host is not None
            self._gpu.download(_as(self._host, target), self.address)

    def finish(self, target: NDArray[Any]) -> None:
        """Have the output in the contiguous target of `read`, once the GPU has done all it was asked for."""
        if self._kind == PAGEABLE:
            self._gpu.fetch(target, self.address)
        else:
            assert self._host is not None
            np.copyto(target, _as(self._host, target))

    def close(self) -> None:
        """Give its memory back."""
        if self._host is not None:
            self._gpu.free_host(self._host)
            self._host = None
        if self._size and self._kind != MAPPED:
            self._gpu.free(self.address)
        self.address = self._size = 0


def _as(memory: HostMemory, value: NDArray[Any]) -> NDArray[Any]:
    """The beginning of some memory as an array like another."""
    return memory.array[: value.nbytes].view(value.dtype).reshape(value.shape)


class Passages:
    """The passages of all tensors by name, made as they are needed. Inputs and outputs go different ways."""

    def __init__(self, gpu: Gpu, kind: str) -> None:
        self._gpu = gpu
        self._kind = kind
        self._named: Dict[str, Passage] = {}

    def of(self, name: str, nbytes: int) -> Passage:
        """A tensor's passage with room for so many bytes. Nothing may be in flight."""
        passage = self._named.setdefault(name, Passage(self._gpu, self._kind))
        passage.reserve(nbytes)
        return passage

    def close(self) -> None:
        """Give all memory back."""
        while self._named:
            self._named.popitem()[1].close()
