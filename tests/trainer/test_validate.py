import numpy as np
import torch

from tests.trainer.few_digits import FewDigits
from wenet_trainer.data.base import normalise
from wenet_trainer.evaluate import accuracy_on, recalibrated
from wenet_trainer.explore.images import CALIBRATION_EPOCH
from wenet_trainer.options import Options
from wenet_trainer.space import SearchSpace
from wenet_trainer.validate import Validation


def test_the_table_has_the_accuracy_of_every_uniform_mode(tiny):
    source, space = FewDigits(), SearchSpace.of(tiny)
    images = source.validation().first(40)
    table = Validation.of(source, Options(validate_images=40)).table(tiny, space)
    assert list(table) == [f"accuracy_{groups}" for groups in (1, 2, 4, 8, 16)]
    for groups in (1, 16):
        expected = accuracy_on(tiny, space.uniform(groups), images, source.preprocess).value
        assert table[f"accuracy_{groups}"] == expected


def test_statistics_are_renewed_where_that_is_asked_for(tiny):
    source, space = FewDigits(), SearchSpace.of(tiny)
    validation = Validation.of(source, Options(validate_images=96, recalibrate=64))
    statistics = normalise(source.train(CALIBRATION_EPOCH).first(64).pixels, source.preprocess)
    images = source.validation().first(96)
    with recalibrated(tiny, space.uniform(4), statistics):
        expected = accuracy_on(tiny, space.uniform(4), images, source.preprocess).value
    assert validation.accuracy(tiny, space.uniform(4)) == expected
    answers = []
    for one in (validation, Validation.of(source, Options(validate_images=96))):
        with torch.no_grad():
            tiny.head.bias.zero_()
        answers.append([one.accuracy(tiny, mode) for mode in space.uniforms()])
    assert not np.allclose(*answers)  # those of this network belong to no data at all
