"""From a checkpoint to the modes worth keeping: searches, measures again, drops what is dominated."""

import platform
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from wenet_runtime.bundle import Accuracy
from wenet_runtime.pareto import hypervolume, pareto_front
from wenet_runtime.registry import load
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.cost import Costs, measure_costs
from wenet_trainer.data import open_source
from wenet_trainer.data.base import input_shape
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore import SEARCHES
from wenet_trainer.explore.bench import Bench
from wenet_trainer.explore.paper import Candidate, Exploration
from wenet_trainer.explore.result import FoundMode, Frontier, Latency, Point, Round, write_frontier
from wenet_trainer.progress import tqdm
from wenet_trainer.space import GroupConfig, SearchSpace
from wenet_trainer.supernet import Flexible

FINALISTS = 16  # measured again on all validation images
FASTER = 0.97  # identical graphs differ by up to 2.6 % in time: less than this is no gain


def find_frontier(
    checkpoint: Checkpoint,
    out: Path,
    *,
    search: str = "paper",
    granularity: str = "block",
    threshold: float = 0.0,
    keep: int = 8,
    search_images: int = 480,
    draws: int = 64,
    rounds: int = 200,
    quiet: bool = False,
) -> Frontier:
    """Explore a checkpoint on this machine and write the frontier.

    The images the search chose by are among those of the final accuracies, so these are slightly
    optimistic.

    Args:
        checkpoint: the trained supernet.
        out: the file to write.
        search: name of the search.
        granularity: "layer" or "block": what one knob moves.
        threshold: least accuracy of every mode but the full network, 0–1; 0 goes down to the smallest.
        keep: most modes to keep.
        search_images: validation images behind the search's accuracies.
        draws: random configurations evaluated beside the search: a greedy path passes much by.
        rounds: interleaved runs behind a kept mode's latency.
        quiet: no progress bars.
    """
    if keep < 2:
        raise ExploreError(f"keep is {keep}, but must be at least 2: the full network and a faster one")
    source = open_source(checkpoint.recipe.data, checkpoint.recipe.seed, checkpoint.recipe.image_size)
    net = checkpoint.network()
    if isinstance(net, Flexible):
        raise ExploreError(
            f"'{checkpoint.recipe.model}' has no weight-enabled layers, so it has no modes to explore or to serve: "
            "compare it with `wenet-trainer report`"
        )
    costs = measure_costs(net, input_shape(source))
    space = SearchSpace.of(net, granularity)
    with tqdm(desc="explore", unit=" configurations", disable=quiet) as progress:
        bench = Bench(net, source, search_images, observe=lambda: _advance(progress))
        exploration: Exploration = load(SEARCHES, search, kind="search", error=ExploreError)(
            space.full(), space.neighbours, bench.search_accuracy, bench.search_latency_ms, threshold
        )
        rng = random.Random(checkpoint.recipe.seed)
        uniforms, drawn = (
            [Candidate(config, bench.search_accuracy(config), bench.search_latency_ms(config)) for config in configs]
            for configs in (space.uniforms(), [space.sample(rng) for _ in range(draws)])
        )
    found_by = {candidate.groups: "random" for candidate in drawn}
    found_by |= {candidate.groups: "uniform" for candidate in uniforms}
    for step in exploration.steps:
        found_by |= {
            candidate.groups: search for candidate in step.candidates if found_by.get(candidate.groups) != "uniform"
        }
    finalists = _finalists(exploration, [*uniforms, *drawn], threshold)
    accuracies = {
        config: bench.final_accuracy(config) for config in tqdm(finalists, "accuracies", unit=" modes", disable=quiet)
    }
    below = [config for config, accuracy in accuracies.items() if accuracy.value < threshold]
    confirmed = {
        config: accuracy for config, accuracy in accuracies.items() if config == space.full() or config not in below
    }
    modes = _measure_again(bench, confirmed, costs, found_by, keep=keep, rounds=rounds, quiet=quiet)
    bench.close()
    frontier = Frontier(
        weights_sha256=checkpoint.weights_sha256(),
        search=search,
        granularity=granularity,
        seed=checkpoint.recipe.seed,
        device=f"{platform.machine()}, {bench.threads} thread, ONNX Runtime",
        data=checkpoint.recipe.data,
        calibration_images=len(bench.calibration),
        search_images=search_images,
        accuracy_evaluations=bench.accuracy_evaluations,
        latency_measurements=bench.latency_measurements,
        threshold=threshold,
        result=_point(exploration.result, costs),
        start=_point(exploration.start, costs),
        steps=tuple(
            Round(tuple(_point(c, costs) for c in step.candidates), step.candidates.index(step.chosen))
            for step in exploration.steps
        ),
        uniforms=tuple(_point(candidate, costs) for candidate in uniforms),
        drawn=tuple(_point(candidate, costs) for candidate in drawn),
        notes=tuple(_note(config, exploration, accuracies[config], threshold) for config in below),
        modes=tuple(modes),
    )
    write_frontier(out, frontier)
    return frontier


def spread(points: Sequence[tuple[float, float]], keep: int, always: Sequence[int] = ()) -> list[int]:
    """Which points of a front to keep, so that the others are missed least.

    Args:
        points: (cost, value) of a front.
        keep: how many.
        always: indices that stay.

    Returns:
        Indices by ascending cost; repeatedly the point that adds least hypervolume has gone.
    """
    kept = sorted(range(len(points)), key=lambda index: points[index])
    reference = (max(p[0] for p in points) * 1.05, min(p[1] for p in points) - 0.01)
    while len(kept) > keep:
        spare = [index for index in kept if index not in always]
        if not spare:
            break
        kept.remove(max(spare, key=lambda gone: hypervolume([points[i] for i in kept if i != gone], reference)))
    return kept


def worthwhile(points: Sequence[tuple[float, float]]) -> list[int]:
    """The Pareto front without points that are hardly faster than a more accurate one.

    Args:
        points: (milliseconds, accuracy).

    Returns:
        Indices by ascending cost.
    """
    kept: list[int] = []
    for index in reversed(pareto_front(points)):
        if not kept or points[index][0] < FASTER * points[kept[-1]][0]:
            kept.append(index)
    return kept[::-1]


def _finalists(exploration: Exploration, beside: Sequence[Candidate], threshold: float) -> list[GroupConfig]:
    """The front of what is at or above the threshold, always with the full network and the search's result.

    Args:
        exploration: what the search saw.
        beside: candidates that were evaluated beside it.
        threshold: least accuracy.

    Returns:
        At most `FINALISTS` configurations, by ascending latency.
    """
    seen = [exploration.start, *beside, *(c for step in exploration.steps for c in step.candidates)]
    distinct = list({c.groups: c for c in seen if c.accuracy >= threshold}.values())
    front = [distinct[i] for i in pareto_front([(c.latency_ms, c.accuracy) for c in distinct])]
    needed = (exploration.start, exploration.result)
    front += [candidate for candidate in dict.fromkeys(needed) if candidate not in front]
    points = [(candidate.latency_ms, candidate.accuracy) for candidate in front]
    always = [0, *(front.index(candidate) for candidate in needed)]
    return [front[index].groups for index in spread(points, FINALISTS, always)]


def _note(config: GroupConfig, exploration: Exploration, accuracy: Accuracy, threshold: float) -> str:
    """What a person should know of a finalist that all validation images put below the threshold."""
    if config == exploration.start.groups:
        name, verdict = "the full network", "kept, because every figure refers to it"
    else:
        name = "the search's result" if config == exploration.result.groups else "a finalist"
        verdict = "not kept"
    return (
        f"{name} is below the threshold {threshold:.4f} on all {accuracy.images} validation images "
        f"({accuracy.value:.4f}): {verdict}"
    )


def _measure_again(
    bench: Bench,
    accuracies: Mapping[GroupConfig, Accuracy],
    costs: Costs,
    found_by: dict[GroupConfig, str],
    *,
    keep: int,
    rounds: int,
    quiet: bool,
) -> list[FoundMode]:
    """Interleaved latencies for the configurations whose accuracy is known; the dominated go.

    The full network stays even if a measurement says it is dominated: every figure refers to it.
    """
    configs = list(accuracies)
    named = {str(index): config for index, config in enumerate(configs)}
    with tqdm(total=rounds, desc="latencies", unit=" rounds", disable=quiet) as progress:
        latencies = bench.final_latencies(named, rounds=rounds, progress=lambda *_: _advance(progress))
    points = [(latencies[str(i)].p50_ms, accuracies[config].value) for i, config in enumerate(configs)]
    front = worthwhile(points)
    full = next(i for i, config in enumerate(configs) if set(config.values()) == {1})
    if full not in front:
        front.append(full)
    chosen = [front[i] for i in spread([points[i] for i in front], keep, [0, front.index(full)])]
    return [
        _mode(f"m{rank}", configs[index], accuracies[configs[index]], costs, latencies[str(index)], found_by)
        for rank, index in enumerate(chosen)
    ]


def _mode(
    mode_id: str,
    config: GroupConfig,
    accuracy: Accuracy,
    costs: Costs,
    latency: Latency,
    found_by: dict[GroupConfig, str],
) -> FoundMode:
    return FoundMode(
        mode_id, dict(config), accuracy, costs.macs(config), costs.params(config), latency, found_by[config]
    )


def _point(candidate: Candidate, costs: Costs) -> Point:
    return Point(dict(candidate.groups), candidate.accuracy, candidate.latency_ms, costs.macs(candidate.groups))


def _advance(progress: tqdm) -> None:
    progress.update(1)
