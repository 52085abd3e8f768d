"""The network under exploration and everything it is measured with: images, evaluators, this machine."""

import copy
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wenet_runtime.engines.base import Engine
from wenet_runtime.meters.base import Meter
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.checks import check_classes
from wenet_trainer.cost import Costs, measure_costs
from wenet_trainer.data import open_source
from wenet_trainer.data.base import Images, Source, input_shape
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.bench import Bench
from wenet_trainer.explore.evaluator import Evaluator
from wenet_trainer.explore.exploring import AUTO, ENOUGH_BLOCKS, Exploring
from wenet_trainer.explore.images import apart, calibration, digest
from wenet_trainer.explore.precision import Variant, emission, open_variant, prepare, right
from wenet_trainer.parallel import Workers
from wenet_trainer.progress import tqdm
from wenet_trainer.space import GroupConfig, SearchSpace
from wenet_trainer.supernet import Flexible
from wenet_trainer.topology import describe

BAR = "{desc}: {n:.0f} configurations, {elapsed}"


@dataclass(frozen=True)
class Subject:
    """What an exploration works with.

    Attributes:
        costs: multiply-accumulates and parameters.
        calibration: (N, C, H, W) training images behind every batch-norm statistic.
        search, final: evaluators on images that are apart.
        workers: all processes that evaluate; the first alone measures and writes.
        device: where accuracies are evaluated.
    """

    net: nn.Module
    source: Source
    space: SearchSpace
    costs: Costs
    bench: Bench
    calibration: Tensor
    search: Evaluator
    final: Evaluator
    search_images: Images
    final_images: Images
    workers: Workers
    device: torch.device

    def notes(self) -> tuple[str, ...]:
        """What a person should know of how accuracies were evaluated."""
        found = [
            f"a journal of other weights or images was moved to {one.set_aside}"
            for one in (self.search, self.final)
            if one.set_aside is not None
        ]
        if self.search.cuts.why_whole:
            found.append(f"every configuration was evaluated alone: {self.search.cuts.why_whole}")
        return tuple(found)

    def in_precision(self, config: GroupConfig, precision: str) -> tuple[Callable[[], Engine], NDArray[np.bool_]]:
        """A configuration in a precision that torch does not compute, and what this machine's engine answers so.

        Returns:
            Opens its engine, and (N,) whether each final image is answered rightly, which is evaluated once.

        Raises:
            EngineError, BundleError: the engine does not compute it, or not in this precision.
        """
        bench, images = self.bench, self.final_images

        @cache
        def variant() -> Variant:
            return prepare(copy.deepcopy(self.net).cpu(), bench.supernet, config, precision, self.calibration)

        def opened() -> Engine:
            return self._open(variant())

        def answers() -> NDArray[np.bool_]:
            with closing(opened()) as engine:
                return right(engine, images, self.source.preprocess)

        shown = digest(self.calibration.numpy(), images.pixels, images.labels)
        return opened, bench.answers(f"{precision} {json.dumps(dict(config))} {shown}", len(images), answers)

    def _open(self, variant: Variant) -> Engine:
        bench = self.bench

        def quickest() -> dict[str, int]:
            return dict(emission(bench.supernet, variant, bench.backend))

        emitted = bench.decided(f"{variant.precision} {json.dumps(dict(variant.groups))}", quickest)
        return open_variant(bench.supernet, variant, bench.backend, emitted=emitted)


def open_subject(
    checkpoint: Checkpoint,
    asked: Exploring,
    folder: Path,
    *,
    meter: Meter,
    workers: Workers,
    device: torch.device,
    quiet: bool,
) -> Subject:
    """Read images, describe the network, and find what was measured of it before.

    Args:
        checkpoint: the trained supernet.
        asked: the settings.
        folder: where measurements are kept.
        meter: where watts come from.
        workers: all processes.
        device: where accuracies are evaluated.
        quiet: no progress bars.

    Raises:
        ExploreError: the network has no modes, or the data too few images.
    """
    recipe = checkpoint.recipe
    source = open_source(recipe.data, recipe.seed, recipe.image_size)
    net = checkpoint.network()
    if isinstance(net, Flexible):
        raise ExploreError(
            f"'{recipe.model}' has no weight-enabled layers, so it has no modes to explore or to serve: "
            "compare it with `wenet-trainer report`"
        )
    training, (search, final) = calibration(source), apart(source, asked.search_images)
    supernet = describe(net, input_shape(source))
    check_classes(net, source)
    seed = recipe.seed if asked.seed is None else asked.seed
    weights = checkpoint.weights_sha256()
    identity = {
        "weights": weights,
        "data": f"{recipe.data}, seed {recipe.seed}, size {recipe.image_size}",
        "calibration": digest(training.numpy()),
        "labels": str(source.labels),
    }
    net = net.to(device)

    def evaluator(name: str, images: Images) -> Evaluator:
        bar = tqdm(desc=f"accuracies ({name})", bar_format=BAR, disable=quiet or not workers.first)
        return Evaluator(
            net,
            images,
            source.preprocess,
            training,
            journal=folder / f"accuracies-{name}.jsonl",
            identity={**identity, "images": digest(images.pixels, images.labels)},
            workers=workers,
            progress=partial(_advance, bar),
        )

    return Subject(
        net,
        source,
        _space(net, asked.granularity),
        measure_costs(net, input_shape(source)),
        Bench(
            supernet,
            training[:1].numpy(),
            folder,
            meter,
            threads=asked.threads,
            seed=seed,
            weights=weights,
            keep=workers.first,
        ),
        training,
        evaluator("search", search),
        evaluator("final", final),
        search,
        final,
        workers,
        device,
    )


def _space(net: nn.Module, granularity: str) -> SearchSpace:
    if granularity != AUTO:
        return SearchSpace.of(net, granularity)
    blocks = SearchSpace.of(net, "block")
    return blocks if len(blocks.knobs) >= ENOUGH_BLOCKS else SearchSpace.of(net, "layer")


def _advance(bar: tqdm, configurations: float) -> None:
    bar.update(configurations)
