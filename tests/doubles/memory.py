"""The simulated GPU's memory: address ranges that are live, freed or nobody's, backed by NumPy bytes."""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

POISON = 0xFF  # NaN as a float, -1 as an integer: what memory holds that nobody wrote
ALIGNMENT = 512  # of every allocation, as cuMemAlloc's are at least 256
GAP = 1 << 16  # between allocations, so that running past an end hits nobody's memory
FIRST_DEVICE_ADDRESS = 0x7_0000_0000


class Misuse(AssertionError):
    """The double was used in a way that the real libraries forbid or leave undefined."""


@dataclass(eq=False)
class Block:
    """One allocation.

    Attributes:
        address: its first byte, as the device sees it.
        size: bytes asked for.
        kind: "device", "pinned" (no device address) or "mapped".
        context: the CUDA context that it belongs to.
        owner: what it is for, named in a leak.
    """

    address: int
    size: int
    kind: str
    context: Any
    owner: str
    freed: bool = False
    tags: Dict[Tuple[int, int], "np.dtype[Any]"] = field(default_factory=dict)
    _bytes: Optional[NDArray[np.uint8]] = None
    _written: Optional[NDArray[np.bool_]] = None

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """What it holds; made when first touched, because blocks for activations never are."""
        if self._bytes is None:
            self._bytes = np.full(self.size, POISON, np.uint8)
        return self._bytes

    def write(self, offset: int, data: NDArray[np.uint8], dtype: "Optional[np.dtype[Any]]") -> None:
        """Store bytes and remember of what type they were, if that is known."""
        end = offset + data.size
        self.bytes[offset:end] = data
        if self._written is None:
            self._written = np.zeros(self.size, np.bool_)
        self._written[offset:end] = True
        for other in [tag for tag in self.tags if tag[0] < end and offset < tag[1]]:
            del self.tags[other]
        if dtype is not None and dtype != np.uint8:
            self.tags[(offset, end)] = dtype

    def is_written(self, offset: int, size: int) -> bool:
        """Whether somebody wrote every byte of a range. Mapped memory is written by the host, unseen."""
        if self.kind == "mapped":
            return True
        return self._written is not None and bool(self._written[offset : offset + size].all())

    def types(self, offset: int, size: int) -> "List[np.dtype[Any]]":
        """The types of what was last written to a range, where known."""
        return [dtype for (start, end), dtype in self.tags.items() if start < offset + size and offset < end]


class Memory:
    """Allocations of one device.

    Args:
        capacity_bytes: all there is.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.blocks: List[Block] = []
        self._next = FIRST_DEVICE_ADDRESS

    @property
    def live(self) -> List[Block]:
        return [block for block in self.blocks if not block.freed]

    @property
    def used_bytes(self) -> int:
        return sum(block.size for block in self.live)

    def allocate(self, size: int, *, kind: str, context: Any, owner: str) -> Optional[Block]:
        """A new block, or None if there is no room. Addresses are never used twice."""
        if self.used_bytes + size > self.capacity_bytes:
            return None
        block = Block(self._next, size, kind, context, owner)
        self._next += (size + GAP + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        self.blocks.append(block)
        return block

    def find(self, address: int) -> Optional[Block]:
        """The block, live or freed, that an address lies in (or is the end of an empty one)."""
        for block in self.blocks:
            if block.address <= address < block.address + max(block.size, 1):
                return block
        return None
