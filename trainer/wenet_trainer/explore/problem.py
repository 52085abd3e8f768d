"""What a search is given and what it gives back; searches know no network, no device and no file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from wenet_runtime.additive import AdditiveCost
from wenet_trainer.space import GroupConfig, SearchSpace


@dataclass(frozen=True)
class Cost:
    """What a configuration costs for one image; energy where a meter answers."""

    latency_ms: float
    energy_mj: float | None = None


@dataclass(frozen=True)
class Seen:
    """A configuration whose accuracy a search evaluated.

    Attributes:
        groups: the configuration.
        accuracy: 0–1, on the search's images.
        cost: measured, or predicted by a table.
        found_by: which part of the search asked for it, e.g. "uniform", "programme", "polish".
    """

    groups: GroupConfig
    accuracy: float
    cost: Cost
    found_by: str


@dataclass(frozen=True)
class Limits:
    """What a mode must keep to be wanted; the full network is always wanted.

    Attributes:
        max_ms: most latency.
        max_mj: most energy.
        min_accuracy: least accuracy, 0–1.
    """

    max_ms: float | None = None
    max_mj: float | None = None
    min_accuracy: float = 0.0


@dataclass(frozen=True)
class Problem:
    """One exploration.

    Attributes:
        space: knobs and levels.
        accuracies: evaluates configurations, in order; repeated ones cost nothing.
        cost: of a configuration.
        latency: the additive table behind `cost`; None when every cost is measured.
        energy: the same for energy; None when unknown.
        limits: what modes must keep to.
        evaluations: most distinct configurations whose accuracy may be evaluated.
        seed: of everything random.
    """

    space: SearchSpace
    accuracies: Callable[[Sequence[GroupConfig]], list[float]]
    cost: Callable[[GroupConfig], Cost]
    latency: AdditiveCost | None = None
    energy: AdditiveCost | None = None
    limits: Limits = field(default_factory=Limits)
    evaluations: int = 250
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """What a search saw.

    Attributes:
        seen: every configuration it evaluated, in order, each once.
        result: what the search itself returns where it returns one network (Algorithm 2); None elsewhere.
        search_seconds: its own time, without evaluations and costs.
    """

    seen: tuple[Seen, ...]
    result: GroupConfig | None = None
    search_seconds: float = 0.0


Search = Callable[[Problem], Found]
