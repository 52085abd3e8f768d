"""An exploration from a checkpoint to `frontier.json`: costs, accuracies, search, final measurements."""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from wenet_runtime.errors import MeterError
from wenet_runtime.layer_table import read_table
from wenet_runtime.meters import METERS
from wenet_runtime.meters.base import Meter
from wenet_runtime.pareto import hypervolume
from wenet_runtime.registry import load
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.devices import open_device
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore import SEARCHES, finals
from wenet_trainer.explore.exploring import Exploring
from wenet_trainer.explore.finalists import Finalist, finalists
from wenet_trainer.explore.problem import Cost, Found, Limits, Problem, Search
from wenet_trainer.explore.result import FoundMode, Frontier, Point, Reference, write_frontier
from wenet_trainer.explore.routes import Route, by_files, by_table
from wenet_trainer.explore.subject import Subject, open_subject
from wenet_trainer.parallel import workers
from wenet_trainer.progress import tqdm
from wenet_trainer.space import GroupConfig

FOLDER = "explore"  # beside the frontier: every measurement, so that a kill loses none
REFERENCE_TIME = 1.1  # of the full network's, so that it counts, too


def find_frontier(
    checkpoint: Checkpoint, out: Path, asked: Exploring | None = None, *, quiet: bool = False
) -> Frontier:
    """Explore a checkpoint and write the frontier; repeated after a kill, it goes on with what was measured.

    Under `torchrun` every process calls this; they share the accuracies, the first one measures and writes.

    Args:
        checkpoint: the trained supernet.
        out: the file to write; measurements are kept in a folder beside it.
        asked: the settings; the defaults if not given.
        quiet: no progress bars.

    Returns:
        The frontier; in other processes than the first one without modes.

    Raises:
        ExploreError: the network has no modes, or none keeps the limits.
    """
    asked = asked or Exploring()
    search: Search = load(SEARCHES, asked.method, kind="search", error=ExploreError)
    meter: Meter = load(METERS, asked.meter, kind="meter", error=MeterError)()
    seed = checkpoint.recipe.seed if asked.seed is None else asked.seed
    device = open_device("auto", int(os.environ.get("LOCAL_RANK", "0")))
    with workers(device) as everyone, closing(meter):
        subject = open_subject(
            checkpoint, asked, out.parent / FOLDER, meter=meter, workers=everyone, device=device, quiet=quiet
        )
        with closing(subject.bench):
            _check_full(subject, asked.limits)
            routes = _routes(subject, asked, quiet)
            _check_energy(routes, subject, asked)
            found = [search(_problem(subject, asked, route, seed)) for route in routes]
            entries, failed = finalists(subject, routes, found, asked.limits, precisions=asked.precisions)
            frontier = _concluded(checkpoint, subject, asked, routes, found, entries, seed=seed, quiet=quiet)
            told = (note for route in routes for note in route.notes)
            frontier = replace(frontier, notes=(*told, *failed, *frontier.notes))
        if everyone.first:
            write_frontier(out, frontier)
    return frontier


def _check_full(subject: Subject, limits: Limits) -> None:
    (value,) = subject.search.accuracies([subject.space.full()])
    if value < limits.min_accuracy:
        raise ExploreError(
            f"the full network's accuracy, {value:.4f}, is below --min-accuracy {limits.min_accuracy:.4f}, so no mode "
            "can reach it: ask for less, or train longer"
        )


def _check_energy(routes: Sequence[Route], subject: Subject, asked: Exploring) -> None:
    """A limit that nothing tells about would be kept in name only."""
    silent = [route.device for route in routes if route.energy is None]
    if asked.limits.max_mj is None or not silent or (asked.measured and asked.meter != "none"):
        return
    raise ExploreError(
        f"--max-mj is given, but nothing tells the energy of {', '.join(silent)}: give --meter, or tables that were "
        "measured with one"
    )


def _routes(subject: Subject, asked: Exploring, quiet: bool) -> list[Route]:
    """By what searches are told costs. Only the first process measures; the others are told."""
    if asked.tables:
        return by_files(asked.tables, subject.bench.supernet)
    everyone, bench = subject.workers, subject.bench
    if asked.measured:

        def cost(config: GroupConfig) -> Cost:
            here = bench.cost(config) if everyone.first else Cost(0.0)
            return Cost(*everyone.from_first([here.latency_ms, here.energy_mj], subject.device))

        return [Route(bench.name, cost)]
    if everyone.first:
        with tqdm(desc="layer table", unit=" networks", disable=quiet) as bar:
            bench.table(lambda done, total: _advance_to(bar, done, total))
    told = everyone.from_first([str(bench.table_path), bench.name], subject.device)  # the others wait for it
    return [by_table(read_table(Path(told[0])), told[1])]


def _problem(subject: Subject, asked: Exploring, route: Route, seed: int) -> Problem:
    return Problem(
        space=subject.space,
        accuracies=subject.search.accuracies,
        cost=route.cost,
        latency=route.latency,
        energy=route.energy,
        limits=asked.limits,
        evaluations=asked.evaluations,
        seed=seed,
    )


def _concluded(
    checkpoint: Checkpoint,
    subject: Subject,
    asked: Exploring,
    routes: Sequence[Route],
    found: Sequence[Found],
    entries: Sequence[Finalist],
    *,
    seed: int,
    quiet: bool,
) -> Frontier:
    """Measure the finalists, keep what is worth it, and write down all that was seen."""
    bench, costs = subject.bench, subject.costs
    measured: dict[str, finals.Measured] = {}
    with tqdm(desc="latencies", unit=" rounds", disable=quiet or not entries) as bar:
        if entries:  # else another process measures
            measured = finals.measure(bench, entries, asked.rounds, lambda done, total: _advance_to(bar, done, total))
    if asked.tables:
        kept, left = finals.keep_for_all(entries, [route.device for route in routes], asked.limits, asked.modes)
    else:
        kept, left = finals.keep_here(entries, measured, asked.limits, asked.modes)
    if entries:
        finals.check_kept(kept, left, asked.limits)
    modes = finals.modes_of(kept, measured, costs, bench.meter.source)
    names = {one.id: mode.id for one, mode in zip(finals.ordered(kept, measured), modes, strict=True)}
    reference = _reference(subject, modes)
    seen = {one.groups: one for search in found for one in search.seen}
    return Frontier(
        weights_sha256=checkpoint.weights_sha256(),
        method=asked.method,
        granularity="block" if any(len(knob) > 1 for knob in subject.space.knobs) else "layer",
        seed=seed,
        device=bench.name,
        tables=tuple(route.device for route in routes if route.latency is not None),
        data=checkpoint.recipe.data,
        calibration_images=len(subject.calibration),
        search_images=len(subject.search_images),
        final_images=len(subject.final_images),
        accuracy_evaluations=len(seen),
        latency_measurements=bench.measurements,
        search_seconds=sum(search.search_seconds for search in found),
        limits=asked.limits,
        reference=reference,
        hypervolume=_share(modes, reference),
        points=tuple(
            Point(
                dict(one.groups),
                one.accuracy,
                one.cost.latency_ms,
                one.cost.energy_mj,
                costs.macs(one.groups),
                one.found_by,
            )
            for one in seen.values()
        ),
        dropped=tuple(finals.dropped_of(left, measured, names)),
        notes=(*subject.notes(), *finals.notes(kept, asked.limits)),
        modes=tuple(modes),
    )


def _reference(subject: Subject, modes: Sequence[FoundMode]) -> Reference:
    """Fixed by the full network, and by what guessing gives."""
    full = next((mode for mode in modes if mode.precision == "fp32" and set(mode.groups.values()) == {1}), None)
    chance = 1 / len(subject.source.labels)
    if full is None:  # not the first process: it measures nothing
        return Reference(0.0, chance)
    energy = None if full.energy_mj is None else REFERENCE_TIME * full.energy_mj
    return Reference(REFERENCE_TIME * full.latency.p50_ms, chance, energy)


def _share(modes: Sequence[FoundMode], reference: Reference) -> float:
    """Hypervolume of the modes as a share of the box from the reference to 0 ms and accuracy 1."""
    if not modes:
        return 0.0
    points = [(mode.latency.p50_ms, mode.accuracy.value) for mode in modes]
    corner = (reference.latency_ms, reference.accuracy)
    return hypervolume(points, corner) / (reference.latency_ms * (1 - reference.accuracy))


def _advance_to(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)
