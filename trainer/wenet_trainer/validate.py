"""The table after every epoch: how accurate the uniform modes are by now."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wenet_trainer.data.base import Source, normalise
from wenet_trainer.evaluate import accuracy, recalibrated
from wenet_trainer.explore.bench import CALIBRATION_EPOCH
from wenet_trainer.options import Options
from wenet_trainer.space import SearchSpace


@dataclass(frozen=True)
class Validation:
    """Images to validate on, read once.

    Attributes:
        inputs: (N, C, H, W) normalised; labels: (N,).
        origins: (N,) or None, see `Images`.
        calibration: training images that give each mode its own statistics; None: those learned are used.
    """

    inputs: Tensor
    labels: NDArray[np.int64]
    origins: NDArray[np.int64] | None
    calibration: Tensor | None

    @classmethod
    def of(cls, source: Source, options: Options, device: torch.device) -> "Validation":
        """The images that the options ask for; at least one, so that a sampler has something to look at."""
        images = source.validation().first(max(1, options.validate_images))
        calibration = None
        if options.recalibrate:
            chosen = source.train(CALIBRATION_EPOCH).first(options.recalibrate)
            calibration = normalise(chosen.pixels, source.preprocess).to(device)
        inputs = normalise(images.pixels, source.preprocess).to(device)
        return cls(inputs, images.labels, images.origins, calibration)

    def accuracy(self, net: nn.Module, config: Mapping[str, int]) -> float:
        """Share of right answers of one configuration, 0–1."""
        if self.calibration is None:
            return accuracy(net, config, self.inputs, self.labels, self.origins).value
        with recalibrated(net, config, self.calibration):
            return accuracy(net, config, self.inputs, self.labels, self.origins).value

    def table(self, net: nn.Module, space: SearchSpace) -> dict[str, float]:
        """Accuracy of every uniform mode, by "accuracy_<groups>"."""
        names = sorted({level for levels in space.allowed.values() for level in levels})
        return {f"accuracy_{level}": self.accuracy(net, space.uniform(level)) for level in names}
