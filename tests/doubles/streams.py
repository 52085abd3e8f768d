"""What the simulated GPU queues: contexts, streams, events, and the work between them."""

from collections import deque
from dataclasses import dataclass, field
from typing import Callable, Deque, Dict, Sequence, Tuple

Range = Tuple[int, int]  # device addresses: first byte, one past the last


class CudaContext:
    """A CUDA context; `thread` made it and may activate it for clean-up, as pycuda has it."""

    def __init__(self, *, primary: bool) -> None:
        self.primary = primary
        self.valid = True
        self.retained = 0


@dataclass(eq=False)
class Work:
    """Something queued: runs when its stream is waited for."""

    what: str
    run: Callable[[], None]
    stream: "CudaStream"
    number: int
    reads: Sequence[Range] = ()
    writes: Sequence[Range] = ()


@dataclass(eq=False)
class CudaStream:
    """An ordered queue. `seen` says how much of other streams' work comes before its next."""

    handle: int
    context: CudaContext
    blocking: bool = True
    destroyed: bool = False
    queue: Deque[Work] = field(default_factory=deque)
    seen: Dict[int, int] = field(default_factory=dict)


@dataclass(eq=False)
class CudaEvent:
    """A point in a stream: what it had seen when the event was recorded."""

    handle: int
    context: CudaContext
    seen: Dict[int, int] = field(default_factory=dict)
    recorded: bool = False


def overlap(some: Sequence[Range], others: Sequence[Range]) -> bool:
    return any(a < d and c < b for a, b in some for c, d in others)
