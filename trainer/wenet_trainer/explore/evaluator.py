"""Accuracies for a search: every configuration is evaluated once, on the same images, and never forgotten."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wenet_runtime.bundle import Preprocess
from wenet_trainer.data.base import Images
from wenet_trainer.errors import ExploreError
from wenet_trainer.evaluate import device_of
from wenet_trainer.explore.cuts import Cuts, cut
from wenet_trainer.explore.journal import Journal
from wenet_trainer.explore.shared_prefix import SharedPrefix
from wenet_trainer.parallel import Workers
from wenet_trainer.space import GroupConfig
from wenet_trainer.supernet import set_active, weight_enabled

AT_LEAST = 8  # configurations evaluated together, then written: 4 share less and take 2–16 % more time
SECONDS = 10.0  # about, between two writes where configurations are quick


class Evaluator:
    """A network's accuracies with recalibrated statistics, several configurations at a time.

    Answers equal those of one configuration alone, bit by bit. With several processes each evaluates a part of
    what a call asks for; every process must make the same calls, and gets the same answers.

    Args:
        net: the supernet, on any device; it is left as it was.
        images: what every configuration is shown.
        preprocess: how an image becomes an input.
        calibration: (N, C, H, W) normalised training images behind the batch-norm statistics.
        journal: file in which answers survive this process; None keeps them in memory alone.
        identity: what the answers depend on beside the network's layers and the number of images.
        workers: all processes; the first alone writes the journal.
        progress: told what was done since the last time, in configurations; may be a fraction.
        clock: seconds; it only decides how often the journal is written.

    Raises:
        ExploreError: there are no images, or the journal cannot be used.
    """

    def __init__(
        self,
        net: nn.Module,
        images: Images,
        preprocess: Preprocess,
        calibration: Tensor,
        *,
        journal: Path | None = None,
        identity: Mapping[str, str] | None = None,
        workers: Workers | None = None,
        progress: Callable[[float], None] = lambda _configurations: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not len(images) or not len(calibration):
            raise ExploreError(
                f"{len(images)} images and {len(calibration)} calibration images give no accuracy: take at least one"
            )
        self._net, self._images, self._preprocess, self._calibration = net, images, preprocess, calibration
        self._workers, self._clock = workers or Workers(), clock
        self._layers = tuple(weight_enabled(net))
        self._cuts: Cuts | None = None
        self._progress = progress
        self._right: dict[GroupConfig, NDArray[np.bool_]] = {}
        self._journal: Journal | None = None
        self._at_once = AT_LEAST
        if journal is not None:
            self._resume(journal, dict(identity or {}))

    @property
    def evaluations(self) -> int:
        """Distinct configurations whose answers are known."""
        return len(self._right)

    @property
    def set_aside(self) -> Path | None:
        """Where a journal of other weights or images was moved to; None where there was none."""
        return self._journal.set_aside if self._journal else None

    @property
    def cuts(self) -> Cuts:
        """Where the network's forward is cut to share what configurations agree on."""
        if self._cuts is None:
            self._cuts = self._cut()
        return self._cuts

    def right(self, configs: Sequence[GroupConfig]) -> list[NDArray[np.bool_]]:
        """Which images each configuration gets right: (N,) each, read-only.

        Raises:
            NetworkError: a configuration does not fit the network.
            TrainingError: processes ask for different configurations.
            ExploreError: the journal cannot be written.
        """
        asked = self._as_run(configs)
        order = self.cuts.order
        # Sorted in execution order, those that agree longest are neighbours, in a piece of them too.
        missing = sorted(set(asked) - self._right.keys(), key=lambda config: [config[name] for name in order])
        if self._workers.world > 1:
            self._workers.check_same(_digest(missing, order), device_of(self._net))
        while missing:
            missing = missing[self._evaluate(missing) :]
        return [self._right[config] for config in asked]

    def accuracies(self, configs: Sequence[GroupConfig]) -> list[float]:
        """The share of right answers of each configuration, see `right`."""
        return [float(right.mean()) for right in self.right(configs)]

    def _evaluate(self, missing: Sequence[GroupConfig]) -> int:
        """Evaluate the first few, write them down, and return how many they were."""
        workers, started = self._workers, self._clock()
        configs = missing[: self._at_once * workers.world]
        mine = [configs[index] for index in np.array_split(np.arange(len(configs)), workers.world)[workers.rank]]
        shared = SharedPrefix(self._net, self.cuts, lambda share: self._progress(share * len(configs) / len(mine)))
        right = np.zeros((0, len(self._images)), np.bool_)
        if mine:
            right = shared.right(mine, self._calibration, self._images, self._preprocess)
        right = workers.gathered(torch.from_numpy(right).to(device_of(self._net))).cpu().numpy()
        found = {config: _read_only(row) for config, row in zip(configs, right, strict=True)}
        if self._journal is not None:
            self._journal.add(found)
        self._right.update(found)
        pace = (self._clock() - started) * workers.world / len(configs)
        self._at_once = workers.from_first(max(AT_LEAST, int(SECONDS / max(pace, 1e-6))), device_of(self._net))
        return len(configs)

    def _as_run(self, configs: Sequence[GroupConfig]) -> list[GroupConfig]:
        """The configurations as the layers run them: groups clipped to what each allows."""
        layers = weight_enabled(self._net)
        active = {name: layer.active_groups for name, layer in layers.items()}
        found = []
        try:
            for config in configs:
                set_active(self._net, config)
                found.append(GroupConfig({name: layer.active_groups for name, layer in layers.items()}))
        finally:
            set_active(self._net, active)
        return found

    def _cut(self) -> Cuts:
        training = [(module, module.training) for module in self._net.modules()]
        active = {name: layer.active_groups for name, layer in weight_enabled(self._net).items()}
        try:
            return cut(self._net.eval(), self._calibration[:2].to(device_of(self._net)))
        finally:
            set_active(self._net, active)
            for module, mode in training:
                module.training = mode

    def _resume(self, path: Path, identity: dict[str, str]) -> None:
        """Take what an earlier process wrote; the first process alone reads the file."""
        device = device_of(self._net)
        if self._workers.first:
            self._journal = Journal(path, self._layers, len(self._images), identity)
            self._right = {config: _read_only(right) for config, right in self._journal.read().items()}
        groups = [[config[name] for name in self._layers] for config in self._right]
        groups = self._workers.from_first(groups, device)
        rows = np.zeros((0, len(self._images)), np.bool_)
        if self._workers.first and self._right:
            rows = np.stack(list(self._right.values()))
        rows = self._workers.gathered(torch.from_numpy(rows).to(device)).cpu().numpy()
        known = (GroupConfig(dict(zip(self._layers, one, strict=True))) for one in groups)
        self._right = {config: _read_only(row) for config, row in zip(known, rows, strict=True)}


def _read_only(right: NDArray[np.bool_]) -> NDArray[np.bool_]:
    right.flags.writeable = False
    return right


def _digest(configs: Sequence[GroupConfig], order: Sequence[str]) -> str:
    text = str([[config[name] for name in order] for config in configs])
    return f"{len(configs)} configurations {hashlib.sha256(text.encode()).hexdigest()[:16]}"
