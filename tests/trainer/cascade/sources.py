"""A data source for tests of the calibration: views of digits that count as images of their own."""

from dataclasses import dataclass, replace

from wenet_trainer.data.base import Images
from wenet_trainer.data.digits import Digits


@dataclass(frozen=True)
class ManyDigits(Digits):
    """`Digits` whose views have no originals, 300 to validate on and 120 to test on."""

    def validation(self) -> Images:
        return replace(self._views("validation", 0, 300, clean_share=0.0), origins=None)

    def test(self, *, clean: bool = False) -> Images:
        return replace(self._views("test", 0, 120, clean_share=0.0), origins=None)


MANY = "tests.trainer.cascade.sources:ManyDigits"
