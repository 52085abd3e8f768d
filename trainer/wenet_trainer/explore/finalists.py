"""Which of what a search saw is measured whole: its front, in every precision the engine has."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Accuracy
from wenet_runtime.engines.base import Engine
from wenet_runtime.errors import BundleError, EngineError
from wenet_runtime.pareto import front, spread
from wenet_trainer.evaluate import share_right
from wenet_trainer.explore import precision
from wenet_trainer.explore.paired import Difference, compare
from wenet_trainer.explore.problem import Cost, Found, Limits, Seen
from wenet_trainer.explore.routes import Route
from wenet_trainer.explore.subject import Subject
from wenet_trainer.space import GroupConfig

MOST = 16  # of one device, in each precision


@dataclass(frozen=True, eq=False)
class Finalist:
    """A configuration in a precision, to be measured whole.

    Attributes:
        id: its groups, run by run, and its precision: stands in records and in reasons.
        accuracy: on the final images.
        open: its engine, as it will be served.
        found_by: which part of the search it comes from.
        below_full: the full network's accuracy less its own, image by image.
        predicted_ms, predicted_mj: by device, as its table says; energy where it does.
    """

    id: str
    groups: GroupConfig
    precision: str
    accuracy: Accuracy
    open: Callable[[], Engine]
    found_by: str
    predicted_ms: Mapping[str, float]
    predicted_mj: Mapping[str, float] = field(default_factory=dict)
    below_full: Difference | None = None

    @property
    def is_full(self) -> bool:
        """Whether it is the full network in fp32, which every figure refers to."""
        return self.precision == "fp32" and set(self.groups.values()) == {1}


def finalists(
    subject: Subject, routes: Sequence[Route], found: Sequence[Found], limits: Limits, *, precisions: bool
) -> tuple[list[Finalist], tuple[str, ...]]:
    """The front of every search, the full network first, each in fp32 and in the precisions the engine has.

    Their accuracies are evaluated by all processes, other precisions' by the first one alone; the others
    return nothing.

    Args:
        subject: the network.
        routes: the devices.
        found: what each device's search saw.
        limits: what modes keep to.
        precisions: whether others than fp32 are tried.

    Returns:
        Them, and a sentence for each precision that the engine does not compute some of them in.
    """
    full = subject.space.full()
    asked_by: dict[GroupConfig, str] = {full: "uniform"}
    for search in found:
        for seen in chosen(search, full, limits, MOST):
            asked_by.setdefault(seen.groups, seen.found_by)
    rights = subject.final.right(list(asked_by))
    if not subject.workers.first:
        return [], ()
    bench, images = subject.bench, subject.final_images
    entries: list[Finalist] = []
    failed: dict[str, str] = {}
    for (config, found_by), right in zip(asked_by.items(), rights, strict=True):
        predicted = {route.device: route.cost(config) for route in routes if route.latency is not None}

        def entry(
            kind: str,
            bits: NDArray[np.bool_],
            opened: Callable[[], Engine],
            config: GroupConfig = config,
            found_by: str = found_by,
            predicted: Mapping[str, Cost] = predicted,
        ) -> Finalist:
            times = {device: cost.latency_ms for device, cost in predicted.items()}
            energies = {device: cost.energy_mj for device, cost in predicted.items() if cost.energy_mj is not None}
            accuracy, below = share_right(bits, images.origins), compare(rights[0], bits, images.origins)
            return Finalist(named(config, kind), config, kind, accuracy, opened, found_by, times, energies, below)

        entries.append(entry("fp32", right, partial(bench.open, config)))
        for kind in precision.precisions_of(bench.backend) if precisions else ():
            try:
                opened, bits = subject.in_precision(config, kind)
            except (EngineError, BundleError) as error:
                failed.setdefault(kind, f"{kind} was not tried for every finalist: {error}")
                continue
            entries.append(entry(kind, bits, opened))
    return entries, tuple(failed.values())


def chosen(found: Found, full: GroupConfig, limits: Limits, most: int) -> list[Seen]:
    """The front of what a search saw within the limits, with the full network and the search's own result.

    Args:
        found: what it saw.
        full: the full network.
        limits: what modes keep to.
        most: how many at most.
    """
    needed = [one for one in found.seen if one.groups in (full, found.result)]
    within = needed + [one for one in found.seen if one not in needed and keeps(one, limits)]
    points = _points(within)
    best = list(dict.fromkeys([*range(len(needed)), *front(points)]))
    kept = spread([points[index] for index in best], most, always=range(len(needed)))
    return [within[best[index]] for index in kept]


def named(config: GroupConfig, precision: str) -> str:
    """A name that no other configuration in any precision has: "1×4 8×2 int8" for groups 1, 1, 1, 1, 8, 8."""
    runs = [(groups, len(list(run))) for groups, run in itertools.groupby(config.values())]
    return " ".join([*(f"{groups}×{count}" for groups, count in runs), precision])


def keeps(one: Seen, limits: Limits) -> bool:
    """Whether a configuration keeps to the limits, as far as is known of it."""
    energy = one.cost.energy_mj
    return (
        one.accuracy >= limits.min_accuracy
        and (limits.max_ms is None or one.cost.latency_ms <= limits.max_ms)
        and (limits.max_mj is None or energy is None or energy <= limits.max_mj)
    )


def _points(seen: Sequence[Seen]) -> list[tuple[float, ...]]:
    """Costs to minimise and the accuracy; energy only where all tell theirs."""
    energies = [one.cost.energy_mj for one in seen if one.cost.energy_mj is not None]
    if len(energies) < len(seen):
        return [(one.cost.latency_ms, one.accuracy) for one in seen]
    return [(one.cost.latency_ms, energy, one.accuracy) for one, energy in zip(seen, energies, strict=True)]
