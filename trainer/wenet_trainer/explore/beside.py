"""Another flexible network's curve for a frontier's axes: the same images, the same engine, the same moments."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from wenet_runtime.bundle import Accuracy
from wenet_runtime.engines.base import Backend, Engine
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import lower
from wenet_runtime.profiler import load_graph, sample
from wenet_trainer.checkpoint import Checkpoint, read_checkpoint
from wenet_trainer.data import open_source
from wenet_trainer.data.base import Images, Source, input_shape
from wenet_trainer.errors import ExploreError
from wenet_trainer.evaluate import accuracy_on, recalibrated
from wenet_trainer.explore.images import apart, calibration
from wenet_trainer.explore.result import Frontier
from wenet_trainer.peers.onnx import width_model
from wenet_trainer.peers.slimmable import KNOB, Slimmable
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.topology import INPUT, describe

SAME = ("data", "image_size", "seed")  # of two recipes whose runs share every split: splits follow the seed


@dataclass(frozen=True)
class PeerPoint:
    """One width.

    Attributes:
        level: the width level, 1 = full width.
        accuracy: with recalibrated statistics, on the images that the modes' accuracies are of.
        latency_ms: median of pairwise ratios to WeNet's full network, times that network's milliseconds.
        macs: multiply-accumulates of one image.
    """

    level: int
    accuracy: Accuracy
    latency_ms: float
    macs: int


@dataclass(frozen=True)
class PeerCurve:
    """A peer's widths, from the full one to the narrowest, under a name for the legend."""

    name: str
    points: tuple[PeerPoint, ...]


@dataclass(frozen=True)
class Yardstick:
    """What a frontier was measured with, so that a peer is measured likewise.

    Attributes:
        recipe: of the run that the frontier belongs to.
        source: its data.
        images: behind the modes' accuracies.
        calibration: (N, C, H, W) normalised training images behind every batch-norm statistic.
        backend: builds and loads, as for the modes.
        full: WeNet's full network, loaded.
        full_ms: its median latency in the frontier.
        rounds: interleaved runs behind a latency.
    """

    recipe: Recipe
    source: Source
    images: Images
    calibration: Tensor
    backend: Backend
    full: Engine
    full_ms: float
    rounds: int = 100


def peer_curve(run: Path, by: Yardstick, *, observe: Callable[[], None] = lambda: None) -> PeerCurve:
    """Accuracy and latency of every width of a slimmable network that was trained on the same data.

    Args:
        run: directory of the peer's training.
        by: what the frontier was measured with; its engine stays open.
        observe: told after each width.

    Raises:
        CheckpointError: there is no checkpoint.
        ExploreError: it was trained on other data or with another seed, or is no slimmable network.
    """
    checkpoint = read_checkpoint(run)
    net = _slimmable(run, checkpoint, by.recipe)
    points = []
    for level in _levels(checkpoint, net):
        config = {KNOB: level}
        with recalibrated(net, config, by.calibration):
            accuracy = accuracy_on(net, config, by.images, by.source.preprocess)
            model = width_model(net, level, input_shape(by.source))
        macs = net.macs(config, input_shape(by.source))
        points.append(PeerPoint(level, accuracy, _latency_ms(model, f"{run.name}, width level {level}", by), macs))
        observe()
    return PeerCurve(run.resolve().name, tuple(points))


def peer_curves(
    runs: Sequence[Path],
    checkpoint: Checkpoint,
    frontier: Frontier,
    *,
    search_images: int | None = None,
    threads: int = 1,
    observe: Callable[[], None] = lambda: None,
) -> list[PeerCurve]:
    """The curves of several peers, measured on this machine, for a frontier that was measured here.

    Args:
        runs: directories of the peers' trainings.
        checkpoint: what the frontier belongs to.
        frontier: gives the full network's time.
        search_images: as the frontier was asked for, so that accuracies are of the same images.
        threads: likewise.
        observe: told after each width.

    Raises:
        CheckpointError, ExploreError: as `peer_curve`; or the frontier lacks the full network.
    """
    if not runs:
        return []
    full = next(
        (mode for mode in frontier.modes if mode.precision == "fp32" and set(mode.groups.values()) == {1}), None
    )
    if full is None:
        raise ExploreError("the frontier has no full network to compare times with: explore again")
    recipe = checkpoint.recipe
    source = open_source(recipe.data, recipe.seed, recipe.image_size)
    backend = OrtBackend(None, threads)
    graph = lower(describe(checkpoint.network(), input_shape(source)), full.groups)
    with closing(load_graph(backend, graph, "the full network")) as engine:
        images, training = apart(source, search_images)[1], calibration(source)
        by = Yardstick(recipe, source, images, training, backend, engine, full.latency.p50_ms)
        return [peer_curve(run, by, observe=observe) for run in runs]


def check_beside(run: Path, recipe: Recipe) -> None:
    """Refuse a run that cannot stand beside this one, before anything is measured. Raises as `peer_curve`."""
    _slimmable(run, read_checkpoint(run), recipe)


def _slimmable(run: Path, checkpoint: Checkpoint, recipe: Recipe) -> Slimmable:
    theirs = checkpoint.recipe
    other = [
        f"{name} is {getattr(theirs, name)!r} there, {getattr(recipe, name)!r} here"
        for name in SAME
        if getattr(theirs, name) != getattr(recipe, name)
    ]
    if other:
        raise ExploreError(
            f"{run} was trained on other images ({'; '.join(other)}), and may have learned those that judge here: "
            "train it with the same --data, --image-size and --seed"
        )
    net = checkpoint.network()
    if not isinstance(net, Slimmable):
        raise ExploreError(
            f"{run} holds '{theirs.model}', which is no slimmable network: a curve beside the frontier needs a run "
            "of wenet_trainer.peers.networks, such as --model wenet_trainer.peers.networks:slimmable_digits_resnet"
        )
    return net


def _levels(checkpoint: Checkpoint, net: Slimmable) -> list[int]:
    if checkpoint.recipe.sampling == "fixed":  # nothing else was trained
        return [SearchSpace.of(net).uniform(checkpoint.recipe.groups)[KNOB]]
    return [config[KNOB] for config in SearchSpace.of(net).uniforms()]


def _latency_ms(model: bytes, name: str, by: Yardstick) -> float:
    """Built like a mode; interleaved with the full network, so that the machine's drift cancels."""
    graph = Graph.parse(model, numbers={}, inputs=[INPUT])
    image = {INPUT: by.calibration[:1].float().numpy()}
    with closing(load_graph(by.backend, graph, name)) as engine:
        samples = sample({"full": by.full, "it": engine}, image, rounds=by.rounds)
    return float(np.median(samples["it"] / samples["full"])) * by.full_ms
