"""Which of what a search saw is measured whole: its front, in every precision the engine has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from wenet_runtime.bundle import Accuracy
from wenet_runtime.engines.base import Engine
from wenet_runtime.errors import BundleError, EngineError
from wenet_runtime.pareto import front, spread
from wenet_trainer.evaluate import share_right
from wenet_trainer.explore import precision
from wenet_trainer.explore.problem import Found, Limits, Seen
from wenet_trainer.explore.routes import Route
from wenet_trainer.explore.subject import Subject
from wenet_trainer.space import GroupConfig

MOST = 16  # of one device, in each precision


@dataclass(frozen=True, eq=False)
class Finalist:
    """A configuration in a precision, to be measured whole.

    Attributes:
        id: stands in records and, while it is no mode, in reasons.
        accuracy: on the final images.
        open: its engine, as it will be served.
        found_by: which part of the search it comes from.
        predicted_ms: by device, as its table says.
    """

    id: str
    groups: GroupConfig
    precision: str
    accuracy: Accuracy
    open: Callable[[], Engine]
    found_by: str
    predicted_ms: Mapping[str, float]

    @property
    def is_full(self) -> bool:
        """Whether it is the full network in fp32, which every figure refers to."""
        return self.precision == "fp32" and set(self.groups.values()) == {1}


def finalists(
    subject: Subject, routes: Sequence[Route], found: Sequence[Found], limits: Limits, *, precisions: bool
) -> list[Finalist]:
    """The front of every search, the full network first, each in fp32 and in the precisions the engine has.

    Their accuracies are evaluated by all processes, other precisions' by the first one alone; the others
    return nothing.

    Args:
        subject: the network.
        routes: the devices.
        found: what each device's search saw.
        limits: what modes keep to.
        precisions: whether others than fp32 are tried.
    """
    full = subject.space.full()
    asked_by: dict[GroupConfig, str] = {full: "uniform"}
    for search in found:
        for seen in chosen(search, full, limits, MOST):
            asked_by.setdefault(seen.groups, seen.found_by)
    rights = subject.final.right(list(asked_by))
    if not subject.workers.first:
        return []
    bench, images = subject.bench, subject.final_images
    entries: list[Finalist] = []
    for number, ((config, found_by), right) in enumerate(zip(asked_by.items(), rights, strict=True)):
        predicted = {route.device: route.cost(config).latency_ms for route in routes if route.latency is not None}

        def entry(
            kind: str,
            accuracy: Accuracy,
            opened: Callable[[], Engine],
            name: str = f"c{number}",
            config: GroupConfig = config,
            found_by: str = found_by,
            predicted: Mapping[str, float] = predicted,
        ) -> Finalist:
            return Finalist(f"{name} {kind}", config, kind, accuracy, opened, found_by, predicted)

        entries.append(entry("fp32", share_right(right, images.origins), partial(bench.open, config)))
        for kind in precision.precisions_of(bench.backend) if precisions else ():
            try:
                variant, bits = subject.in_precision(config, kind)
            except (EngineError, BundleError):
                continue  # this engine does not compute this network so, so there is nothing to choose
            opened = partial(precision.open_variant, bench.supernet, variant, bench.backend, bench.plan)
            entries.append(entry(kind, share_right(bits, images.origins), opened))
    return entries


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
    points = [_point(one) for one in within]
    best = list(dict.fromkeys([*range(len(needed)), *front(points)]))
    kept = spread([points[index] for index in best], most, always=range(len(needed)))
    return [within[best[index]] for index in kept]


def keeps(one: Seen, limits: Limits) -> bool:
    """Whether a configuration keeps to the limits, as far as is known of it."""
    energy = one.cost.energy_mj
    return (
        one.accuracy >= limits.min_accuracy
        and (limits.max_ms is None or one.cost.latency_ms <= limits.max_ms)
        and (limits.max_mj is None or energy is None or energy <= limits.max_mj)
    )


def _point(one: Seen) -> tuple[float, ...]:
    energy = () if one.cost.energy_mj is None else (one.cost.energy_mj,)
    return (one.cost.latency_ms, *energy, one.accuracy)
