"""A data source for tests: the real digits, but few of them."""

from dataclasses import dataclass

from wenet_trainer.data.base import Images
from wenet_trainer.data.digits import Digits


@dataclass(frozen=True)
class FewDigits(Digits):
    """`Digits` with 128 images per epoch and 96 to validate on."""

    def train(self, epoch: int) -> Images:
        return self._views("train", epoch, 128, clean_share=1.0)

    def validation(self) -> Images:
        return self._views("validation", 0, 96, clean_share=0.0)


FEW = "tests.trainer.few_digits:FewDigits"
