"""What modes take in memory, and which of them go when another one comes: functions on values.

Numbers that several modes share are counted once, because they lie in memory once. What a mode takes is what
its numbers and its model take; the process itself, activations and an engine's own bookkeeping come on top.
"""

import contextlib
import ctypes
from dataclasses import dataclass
from typing import Dict, Iterable, List, Mapping, Optional, Sequence

from wenet_runtime.engines.base import Artifact

MB = 1 << 20


def give_back() -> None:
    """Return to the system what was freed; the C library keeps it otherwise, 100 MB after building a ResNet-50."""
    with contextlib.suppress(AttributeError, OSError):  # glibc has it, others need it not
        ctypes.CDLL(None).malloc_trim(0)


@dataclass(frozen=True)
class Footprint:
    """What one mode takes.

    Attributes:
        shared: bytes of each of its numbers, by where they lie in memory.
        own: bytes that it shares with no other mode.
    """

    shared: Mapping[int, int]
    own: int

    @property
    def alone(self) -> int:
        """Bytes it takes when no other mode is there."""
        return sum(self.shared.values()) + self.own


def footprint_of(artifact: Artifact) -> Footprint:
    """What an engine's form of a mode takes once it is loaded."""
    places = {value.__array_interface__["data"][0]: value.nbytes for value in artifact.numbers.values()}
    return Footprint(places, len(artifact.model))


def together(footprints: Iterable[Footprint]) -> int:
    """Bytes that modes take beside one another."""
    places: Dict[int, int] = {}
    own = 0
    for one in footprints:
        places.update(one.shared)
        own += one.own
    return sum(places.values()) + own


def added(one: Footprint, others: Iterable[Footprint]) -> int:
    """Bytes that a mode takes beside others that are there."""
    there = list(others)
    return together([*there, one]) - together(there)


def evicted_for(
    coming: str, going: Sequence[str], staying: Sequence[str], footprints: Mapping[str, Footprint], limit: float
) -> Optional[List[str]]:
    """Which modes must go so that another one fits.

    Args:
        coming: the mode that comes; not resident.
        going: resident modes that may go, the first first.
        staying: resident modes that may not.
        footprints: of all of these.
        limit: bytes.

    Returns:
        The first few of `going`, as few as will do; None when it does not fit beside `staying` either.
    """
    for count in range(len(going) + 1):
        left = [*staying, *going[count:], coming]
        if together(footprints[one] for one in left) <= limit:
            return list(going[:count])
    return None
