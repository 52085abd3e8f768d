"""Which modes can answer at a moment."""

from dataclasses import dataclass, field, replace
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

    def taken_out(self, mode_id: str, reason: str) -> "Residency":
        """The same without a mode, for good."""
        return replace(self, out={**self.out, mode_id: reason}, failing=self.failing - {mode_id})

    def suspended(self, mode_id: str, reason: str) -> "Residency":
        """The same without a mode that fails, until it is restored."""
        return replace(self, out={**self.out, mode_id: reason}, failing=self.failing | {mode_id})

    def restored(self, mode_id: str) -> "Residency":
        """The same with a mode that was suspended; one that was taken out for good stays out."""
        if mode_id not in self.failing:
            return self
        out = {one: why for one, why in self.out.items() if one != mode_id}
        return replace(self, out=out, failing=self.failing - {mode_id})
