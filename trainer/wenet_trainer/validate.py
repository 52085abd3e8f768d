"""The table after every epoch: how accurate the uniform modes are by now."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from wenet_runtime.bundle import Preprocess
from wenet_trainer.checkpoint import ACCURACY
from wenet_trainer.data.base import Images, Source, normalise
from wenet_trainer.evaluate import accuracy_on, recalibrated
from wenet_trainer.explore.images import CALIBRATION_EPOCH
from wenet_trainer.options import Options
from wenet_trainer.space import SearchSpace


@dataclass(frozen=True)
class Validation:
    """Images to validate on, read once and kept as they are: a batch at a time goes to the network's device.

    Attributes:
        images: to be answered.
        recipe: how an image becomes an input.
        calibration: (N, C, H, W) training images that give each mode its own statistics; None: those
            that training left are used.
    """

    images: Images
    recipe: Preprocess
    calibration: Tensor | None

    @classmethod
    def of(cls, source: Source, options: Options) -> "Validation":
        """The images that the options ask for."""
        calibration = None
        if options.recalibrate:
            chosen = source.train(CALIBRATION_EPOCH).first(options.recalibrate)
            calibration = normalise(chosen.pixels, source.preprocess)
        return cls(source.validation().first(options.validate_images), source.preprocess, calibration)

    def accuracy(self, net: nn.Module, config: Mapping[str, int]) -> float:
        """Share of right answers of one configuration, 0–1."""
        if self.calibration is None:
            return accuracy_on(net, config, self.images, self.recipe).value
        with recalibrated(net, config, self.calibration):
            return accuracy_on(net, config, self.images, self.recipe).value

    def table(self, net: nn.Module, space: SearchSpace) -> dict[str, float]:
        """Accuracy of every uniform mode, by "accuracy_<groups>"."""
        names = sorted({level for levels in space.allowed.values() for level in levels})
        return {f"{ACCURACY}{level}": self.accuracy(net, space.uniform(level)) for level in names}
