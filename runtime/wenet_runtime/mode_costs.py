"""What each mode of a pool costs beside the others that are resident."""

from dataclasses import dataclass
from typing import Dict, Optional

from wenet_runtime.memory import MB, added, together
from wenet_runtime.pool import Pool


@dataclass(frozen=True)
class Cost:
    """What one mode costs beside the others.

    Attributes:
        memory_mb: what it takes, or would take, beyond what other resident modes have brought.
        load_ms: what it took until it could answer, warmed and checked; None if it was never loaded.
    """

    memory_mb: float
    load_ms: Optional[float]
    resident: bool


def costs_of(pool: Pool) -> Dict[str, Cost]:
    """What every mode costs here, by its id."""
    there = pool.resident
    found: Dict[str, Cost] = {}
    for mode_id in pool.modes:
        others = [pool.footprint(other) for other in there if other != mode_id]
        memory_mb = added(pool.footprint(mode_id), others) / MB
        found[mode_id] = Cost(memory_mb, pool.load_ms(mode_id), mode_id in there)
    return found


def resident_mb(pool: Pool) -> float:
    """What the resident modes take together."""
    return together(pool.footprint(mode_id) for mode_id in pool.resident) / MB
