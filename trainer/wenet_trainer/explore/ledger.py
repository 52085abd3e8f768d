"""The ledger of one search: what it asked for and was told, how often it may still ask, whose time went where."""

from collections.abc import Callable, Sequence
from time import perf_counter

from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.problem import Found, Limits, Problem, Seen
from wenet_trainer.space import GroupConfig


class Ledger:
    """Asks a problem's evaluations, each once, and keeps the answers in order.

    Args:
        problem: whose accuracies and costs are asked for.
        bounded: whether `problem.evaluations` is the most that may be asked for.
        clock: seconds.
    """

    def __init__(self, problem: Problem, *, bounded: bool = True, clock: Callable[[], float] = perf_counter) -> None:
        self._problem = problem
        self._bounded = bounded
        self._clock = clock
        self._began = clock()
        self._elsewhere = 0.0
        self._seen: dict[GroupConfig, Seen] = {}

    @property
    def seen(self) -> tuple[Seen, ...]:
        """Everything that was evaluated, in order."""
        return tuple(self._seen.values())

    @property
    def left(self) -> int:
        """How many more configurations may be evaluated; of an unbounded ledger never 0."""
        return self._problem.evaluations - len(self._seen) if self._bounded else 1

    def ask(self, configs: Sequence[GroupConfig], found_by: str) -> list[Seen]:
        """Evaluate in one call what was not evaluated yet; what exceeds the bound is left out of the answer."""
        new = [config for config in dict.fromkeys(configs) if config not in self._seen]
        if self._bounded:
            new = new[: self.left]
        if new:
            before = self._clock()
            accuracies = self._problem.accuracies(new)
            costs = [self._problem.cost(config) for config in new]
            self._elsewhere += self._clock() - before
            if len(accuracies) != len(new):
                raise ExploreError(
                    f"{len(new)} accuracies were asked for, {len(accuracies)} came: every configuration needs one"
                )
            known = {one.cost.energy_mj is None for one in self._seen.values()} | {c.energy_mj is None for c in costs}
            if len(known) > 1:
                raise ExploreError(
                    "the energy of some configurations is known and of others not: the meter stopped answering; "
                    "explore again, or with --meter none"
                )
            for config, accuracy, cost in zip(new, accuracies, costs, strict=True):
                self._seen[config] = Seen(config, accuracy, cost, found_by)
        return [self._seen[config] for config in configs if config in self._seen]

    def found(self, result: GroupConfig | None = None) -> Found:
        """What the search gives back."""
        return Found(self.seen, result, self._clock() - self._began - self._elsewhere)


def refuse_unreachable(seen: Sequence[Seen], limits: Limits) -> None:
    """Raises `ExploreError` when nothing that was evaluated reaches the least accuracy wanted."""
    best = max(one.accuracy for one in seen)
    if best < limits.min_accuracy:
        raise ExploreError(
            f"no network reaches the threshold {limits.min_accuracy:.4f}: of {len(seen)} the most accurate has "
            f"{best:.4f}: lower --min-accuracy or train longer"
        )
