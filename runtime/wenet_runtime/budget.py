"""What a request may cost: its budget, its options and its deadline."""

import math
from dataclasses import dataclass
from typing import Optional

from wenet_runtime.errors import BudgetError

MAX_BUDGET_MS = 600_000.0
MIN_BUDGET = 0.001
MAX_BUDGET_MJ = 1_000_000.0
ON_MISS = ("degrade", "reject", "late")


def _in_range(name: str, value: Optional[float], low: float, high: float) -> None:
    if value is not None and not (math.isfinite(value) and low <= value <= high):
        raise BudgetError(f"{name} is {value}: give a number from {low:g} to {high:g}")


@dataclass(frozen=True)
class Budget:
    """Limits of one request; None means no limit.

    Attributes:
        latency_ms: end to end, 0.001–600000, from the first byte of the request to the last of the reply.
        energy_mj: per row of the batch, 0.001–1000000.
        min_accuracy: hard floor on the mode's validation accuracy, 0–1.

    Raises:
        BudgetError: a value out of its range.
    """

    latency_ms: Optional[float] = None
    energy_mj: Optional[float] = None
    min_accuracy: Optional[float] = None

    def __post_init__(self) -> None:
        _in_range("budget_ms", self.latency_ms, MIN_BUDGET, MAX_BUDGET_MS)
        _in_range("budget_mj", self.energy_mj, MIN_BUDGET, MAX_BUDGET_MJ)
        _in_range("min_accuracy", self.min_accuracy, 0.0, 1.0)


@dataclass(frozen=True)
class RequestOptions:
    """Everything a request may ask for.

    Attributes:
        budget: its limits.
        mode: the one mode it accepts, or None.
        on_miss: what happens when nothing fits: `degrade`, `reject` or `late`.
        priority: 1 (first) to 3.
        protocol_ms: a deadline of the protocol (V2 timeout, gRPC, Envoy); never loosens, and ends `late` work.
    """

    budget: Budget = Budget()
    mode: Optional[str] = None
    on_miss: str = "degrade"
    priority: int = 2
    protocol_ms: Optional[float] = None

    def __post_init__(self) -> None:
        if self.on_miss not in ON_MISS:
            raise BudgetError(f"on_miss is '{self.on_miss}': give one of {', '.join(ON_MISS)}")
        if self.priority not in (1, 2, 3):
            raise BudgetError(f"priority is {self.priority}: give 1 (first), 2 or 3")

    @property
    def effective_ms(self) -> Optional[float]:
        """The tighter of the budget and the protocol's deadline."""
        given = [value for value in (self.budget.latency_ms, self.protocol_ms) if value is not None]
        return min(given) if given else None

    def protocol_ended(self, elapsed_ms: float) -> bool:
        """Whether a protocol's deadline has passed: unlike a budget, it ends `late` work too."""
        return self.protocol_ms is not None and elapsed_ms >= self.protocol_ms


@dataclass(frozen=True)
class Deadline:
    """A request's clock: when it began (monotonic seconds) and how long it may take."""

    start_s: float
    limit_ms: Optional[float]

    @property
    def at_s(self) -> float:
        """The instant it ends; infinity without a limit."""
        return math.inf if self.limit_ms is None else self.start_s + self.limit_ms / 1e3

    def elapsed_ms(self, now_s: float) -> float:
        """Time already spent."""
        return (now_s - self.start_s) * 1e3

    def left_ms(self, now_s: float) -> float:
        """Time left; negative when it has passed, infinity without a limit."""
        return math.inf if self.limit_ms is None else self.limit_ms - self.elapsed_ms(now_s)
