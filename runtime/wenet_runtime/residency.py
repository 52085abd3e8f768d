"""Which modes can answer at a moment."""

from dataclasses import dataclass, field
from typing import FrozenSet, Mapping


@dataclass(frozen=True)
class Residency:
    """Which modes are there now, and which were taken out of service and why.

    Attributes:
        failing: those of `out` that failed and are tried again.
    """

    resident: FrozenSet[str] = frozenset()
    out: Mapping[str, str] = field(default_factory=dict)
    failing: FrozenSet[str] = frozenset()

    def without(self, failed: Mapping[str, str]) -> "Residency":
        """The same for a request that some modes have failed."""
        return Residency(self.resident, {**self.out, **failed}, self.failing | set(failed))
