"""The little of CUDA that an engine of its own needs, behind one interface, whichever Python binding is installed.

pycuda comes first, because it is what a Jetson Nano can have (CUDA 10.2); cuda-python where pycuda is absent.
"""

import importlib
from dataclasses import dataclass
from typing import Any, ContextManager, List, NamedTuple, Protocol, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.errors import EngineError

BINDINGS = ("wenet_runtime.engines.cuda_pycuda:PycudaGpu", "wenet_runtime.engines.cuda_runtime:RuntimeGpu")
COHERENT = (7, 2)  # from here on the CPU's caches see what an integrated GPU writes to pinned memory

MAPPED, PINNED, PAGEABLE = "mapped", "pinned", "pageable"


class Transfer(NamedTuple):
    """How tensors pass between the CPU and the GPU.

    Attributes:
        inputs: `MAPPED` (the GPU reads where the CPU wrote) or `PINNED` (copied to the GPU).
        outputs: `MAPPED`, `PINNED` (copied to pinned memory, then out of it) or `PAGEABLE` (copied once, to the end).
    """

    inputs: str
    outputs: str


def transfer(*, integrated: bool, compute_capability: Tuple[int, int]) -> Transfer:
    """The quickest way for a kind of GPU.

    An integrated GPU shares its memory with the CPU, so nothing need be copied. Before `COHERENT` (Nano, TX2)
    the CPU reaches pinned memory past its caches: good for an input written once in order, bad for an output
    that is read.
    """
    if not integrated:
        return Transfer(PINNED, PINNED)
    if compute_capability >= COHERENT:
        return Transfer(MAPPED, MAPPED)
    return Transfer(MAPPED, PAGEABLE)


@dataclass(frozen=True, eq=False)
class HostMemory:
    """Memory of the CPU that the GPU reaches without the system's help.

    Attributes:
        array: (nbytes,) uint8; not to be used once it is freed.
        address: where the GPU finds it, 0 if it is not mapped.
        held: what the binding frees it by.
    """

    array: NDArray[np.uint8]
    address: int
    held: Any


class Gpu(Protocol):
    """The first GPU and one stream on it. Methods but `current` and `close` want `current`; all raise `EngineError`.

    Attributes:
        name, compute_capability: as its maker says.
        integrated: whether it shares its memory with the CPU.
        stream: handle of the stream on which everything here runs, in the order it was asked for.
    """

    name: str
    compute_capability: Tuple[int, int]
    integrated: bool
    stream: int

    def current(self) -> ContextManager[None]:
        """Let this thread use the GPU within the block."""
        ...

    def free_bytes(self) -> int:
        """Memory that is left on it."""
        ...

    def allocate(self, nbytes: int) -> int:
        """Take memory of the GPU, aligned to 256 bytes at least. Returns its address."""
        ...

    def free(self, address: int) -> None:
        """Give back what `allocate` returned."""
        ...

    def allocate_host(self, nbytes: int, *, mapped: bool) -> HostMemory:
        """Take pinned memory of the CPU, where the GPU can address it too if `mapped`."""
        ...

    def free_host(self, memory: HostMemory) -> None:
        """Give back what `allocate_host` returned."""
        ...

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """Copy a contiguous pinned array to the GPU. It may not change before `synchronize`."""
        ...

    def download(self, target: NDArray[Any], address: int) -> None:
        """Copy from the GPU to a contiguous pinned array. It is there after `synchronize`."""
        ...

    def fetch(self, target: NDArray[Any], address: int) -> None:
        """Copy from the GPU to any contiguous array, at once. What it holds there was waited for."""
        ...

    def synchronize(self) -> None:
        """Wait until the stream has done all it was asked for; this is where its failures show."""
        ...

    def close(self) -> None:
        """Give the stream back. Closing twice is harmless."""
        ...


def open_gpu() -> Gpu:
    """The first GPU, through the first binding that is installed.

    Raises:
        EngineError: there is no GPU, its driver does not work, or no binding is installed.
    """
    missing: List[str] = []
    for target in BINDINGS:
        module, _, name = target.partition(":")
        try:
            gpu: Gpu = getattr(importlib.import_module(module), name)()
        except ImportError as error:
            missing.append(str(error))
        else:
            return gpu
    raise EngineError(
        f"no Python binding of CUDA works here ({'; '.join(missing)}): install pycuda (CUDA 10.2 and later) or "
        "cuda-python (CUDA 11 and later), or choose another --engine"
    )
