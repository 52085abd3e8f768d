"""Algorithm 2 of the paper as a pure loop: raise the groups of one knob at a time, greedily."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wenet_trainer.errors import ExploreError
from wenet_trainer.space import GroupConfig


@dataclass(frozen=True)
class Candidate:
    """A configuration that was evaluated.

    Attributes:
        groups: the configuration.
        accuracy: 0–1.
        latency_ms: on this device.
    """

    groups: GroupConfig
    accuracy: float
    latency_ms: float

    @property
    def loss(self) -> float:
        """Line 8: inference time over accuracy; smaller is better."""
        return self.latency_ms / self.accuracy if self.accuracy > 0 else float("inf")


@dataclass(frozen=True)
class Step:
    """One round of the loop: every candidate, and the one with the smallest loss."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate


@dataclass(frozen=True)
class Exploration:
    """What the loop saw.

    Attributes:
        start: the full network.
        steps: every round, in order; the last may have gone below the threshold.
        result: the last network at or above the threshold.
    """

    start: Candidate
    steps: tuple[Step, ...]
    result: Candidate


def explore(
    full: GroupConfig,
    neighbours: Callable[[GroupConfig], Sequence[GroupConfig]],
    accuracy: Callable[[GroupConfig], float],
    latency_ms: Callable[[GroupConfig], float],
    threshold: float,
) -> Exploration:
    """Run Algorithm 2.

    As printed, the loop ends with the first network *below* the threshold and returns it; here the last
    one at or above the threshold is returned, and the step below is kept for the record.

    Args:
        full: the full network.
        neighbours: configurations with one knob raised by a level (line 5); none when all are at the top.
        accuracy: 0–1 (line 6).
        latency_ms: inference time on the target (line 7).
        threshold: δ, the least accuracy wanted; 0 explores to the smallest network.

    Raises:
        ExploreError: the full network is below the threshold already.
    """

    def evaluate(config: GroupConfig) -> Candidate:
        return Candidate(config, accuracy(config), latency_ms(config))

    start = current = result = evaluate(full)
    if start.accuracy < threshold:
        raise ExploreError(
            f"the full network's accuracy {start.accuracy:.4f} is below the threshold {threshold:.4f}: "
            "lower --threshold or train longer"
        )
    steps: list[Step] = []
    while current.accuracy >= threshold:
        result = current
        candidates = tuple(evaluate(config) for config in neighbours(current.groups))
        if not candidates:
            break
        current = min(candidates, key=lambda candidate: candidate.loss)
        steps.append(Step(candidates, current))
    return Exploration(start, tuple(steps), result)
