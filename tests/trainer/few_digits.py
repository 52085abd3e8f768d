"""A data source for tests: the real digits, but few of them."""

from dataclasses import dataclass

from wenet_trainer.data.base import Images
from wenet_trainer.data.digits import Digits


@dataclass(frozen=True)
class FewDigits(Digits):
    """`Digits` with 128 images per epoch and 96 to validate on."""

    def train(self, epoch: int) -> Images:
        return super().train(epoch).first(128)

    def validation(self) -> Images:
        return super().validation().first(96)


FEW = "tests.trainer.few_digits:FewDigits"
