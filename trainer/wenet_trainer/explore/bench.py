"""Measures configurations: accuracy by torch with their own statistics, latency by the device's engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from wenet_runtime.bundle import Accuracy
from wenet_runtime.engines.base import Engine
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.plan import Plan
from wenet_runtime.profiler import load_graph, quickest_ms, sample
from wenet_trainer.data.base import Images, Source, input_shape, normalise
from wenet_trainer.evaluate import accuracy_on, recalibrated
from wenet_trainer.explore.result import Latency
from wenet_trainer.space import GroupConfig, SearchSpace
from wenet_trainer.topology import INPUT, describe

CALIBRATION_EPOCH = 1_000_000  # views that no training epoch shows
CALIBRATION_IMAGES = 512
FINAL_IMAGES = 5_000  # they are held in memory, one byte a pixel and colour


def calibration(source: Source) -> Tensor:
    """The training images behind every batch-norm statistic: (N, C, H, W) normalised."""
    images = source.train(CALIBRATION_EPOCH).first(CALIBRATION_IMAGES)
    return normalise(images.pixels, source.preprocess)


@dataclass
class Bench:
    """A network on this machine, with every result remembered.

    Attributes:
        net: the trained supernet.
        source: where images come from.
        supernet: the same network as the runtime reads it.
        calibration: (N, C, H, W) images for the statistics.
        search_images: validation images that the search's accuracies use.
        rounds: interleaved runs behind a search latency.
        observe: told after each new evaluation.
    """

    net: nn.Module
    source: Source
    search_images: int = 480
    rounds: int = 40
    threads: int = 1
    observe: Callable[[], None] = lambda: None
    supernet: Supernet = field(init=False)
    calibration: Tensor = field(init=False)
    space: SearchSpace = field(init=False)

    def __post_init__(self) -> None:
        self.supernet = describe(self.net, input_shape(self.source))
        self.calibration = calibration(self.source)
        self.space = SearchSpace.of(self.net)
        self._backend = OrtBackend(None, self.threads)
        self._plan = Plan(self.supernet, partial(quickest_ms, self._backend))
        self._validation = self.source.validation().first(FINAL_IMAGES)
        self._full = self._load(self.space.full())
        self._full_ms: float | None = None
        self._accuracies: dict[GroupConfig, float] = {}
        self._latencies: dict[GroupConfig, float] = {}

    @property
    def accuracy_evaluations(self) -> int:
        """Configurations whose accuracy was evaluated for the search."""
        return len(self._accuracies)

    @property
    def latency_measurements(self) -> int:
        """Configurations whose latency was measured for the search."""
        return len(self._latencies)

    def search_accuracy(self, config: GroupConfig) -> float:
        """Accuracy on the search's share of the validation images, with recalibrated statistics."""
        if config not in self._accuracies:
            self._accuracies[config] = self._evaluate(config, self._validation.first(self.search_images)).value
            self.observe()
        return self._accuracies[config]

    def search_latency_ms(self, config: GroupConfig) -> float:
        """Median latency, taken interleaved with the full network's so that the machine's drift cancels.

        It is the median of pairwise ratios to the full network, times the full network's first median.
        """
        if config not in self._latencies:
            engine = self._load(config)
            samples = sample({"full": self._full, "it": engine}, self._image(), rounds=self.rounds)
            engine.close()
            if self._full_ms is None:
                self._full_ms = float(np.median(samples["full"]))
            self._latencies[config] = float(np.median(samples["it"] / samples["full"])) * self._full_ms
        return self._latencies[config]

    def final_accuracy(self, config: GroupConfig) -> Accuracy:
        """Accuracy on the validation images, with recalibrated statistics."""
        return self._evaluate(config, self._validation)

    def final_latencies(
        self, configs: Mapping[str, GroupConfig], *, rounds: int, progress: Callable[[int, int], None]
    ) -> dict[str, Latency]:
        """Latencies of several configurations, all interleaved."""
        engines = {name: self._load(config) for name, config in configs.items()}
        samples = sample(engines, self._image(), rounds=rounds, warmup=5, progress=progress)
        for engine in engines.values():
            engine.close()
        latencies = {}
        for name, taken in samples.items():
            p50, p95, p99 = (float(value) for value in np.percentile(taken, (50, 95, 99)))
            latencies[name] = Latency(p50, p95, p99, len(taken))
        return latencies

    def close(self) -> None:
        """Free the full network's engine."""
        self._full.close()

    def _evaluate(self, config: GroupConfig, images: Images) -> Accuracy:
        with recalibrated(self.net, config, self.calibration):
            return accuracy_on(self.net, config, images, self.source.preprocess)

    def _load(self, config: GroupConfig) -> Engine:
        # Statistics do not change what a run costs, so those of the checkpoint will do.
        graph = lower(self.supernet, config, emitted=self._plan.emitted(config))
        return load_graph(self._backend, graph, str(dict(config)))

    def _image(self) -> dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]:
        image: Tensor = self.calibration[:1].to(torch.float32)
        return {INPUT: image.numpy()}
