"""Boards that a simulated GPU can be: what the adapter asks of a device, as a value."""

from dataclasses import dataclass
from typing import Tuple


@dataclass(frozen=True)
class Board:
    """What a device says of itself.

    Attributes:
        name: as the CUDA driver prints it.
        compute_capability: major, minor.
        integrated: whether the GPU shares the CPU's memory.
        fast_fp16: what `platform_has_fast_fp16` answers.
        fast_int8: what `platform_has_fast_int8` answers.
        memory_bytes: all there is; allocations beyond it fail.
    """

    name: str
    compute_capability: Tuple[int, int]
    integrated: bool
    fast_fp16: bool
    fast_int8: bool
    memory_bytes: int


NANO = Board("NVIDIA Tegra X1", (5, 3), integrated=True, fast_fp16=True, fast_int8=False, memory_bytes=4 << 30)
XAVIER_NX = Board("Xavier", (7, 2), integrated=True, fast_fp16=True, fast_int8=True, memory_bytes=8 << 30)
ORIN_NANO = Board("Orin", (8, 7), integrated=True, fast_fp16=True, fast_int8=True, memory_bytes=8 << 30)
DISCRETE = Board("NVIDIA RTX A4000", (8, 6), integrated=False, fast_fp16=True, fast_int8=True, memory_bytes=16 << 30)
