import numpy as np
import pytest
import torch

from wenet_runtime.bundle import Preprocess
from wenet_trainer.data import base
from wenet_trainer.data.base import Images, normalise, standardise, stretched
from wenet_trainer.errors import DataError


def recipe(channels, side):
    return Preprocess(
        "L" if channels == 1 else "RGB", side, side, (0.2, 0.4, 0.6)[:channels], (0.3, 0.2, 0.1)[:channels]
    )


def drawn(count, channels, side):
    return np.random.default_rng(count).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


@pytest.mark.parametrize("count", [0, 1, 64, 65, 130])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [16, 19])
def test_inputs_made_in_pieces_are_those_made_at_once(count, channels, side):
    pixels, wanted = drawn(count, channels, side), recipe(channels, 16)
    found = normalise(pixels, wanted)
    assert found.shape == (count, channels, 16, 16)
    assert found.dtype == torch.float32
    if count:
        assert torch.equal(found, standardise(stretched(torch.from_numpy(pixels).float() / 255.0, (16, 16)), wanted))
        assert not torch.equal(found, normalise(pixels ^ 1, wanted))


def test_only_a_few_images_are_copied_at_a_time(monkeypatch):
    together = []

    def watched(images, size):
        together.append(len(images))
        return stretched(images, size)

    monkeypatch.setattr(base, "stretched", watched)
    normalise(drawn(200, 3, 8), recipe(3, 8))
    assert together == [64, 64, 64, 8]


def test_images_of_another_form_are_refused():
    with pytest.raises(DataError, match=r"must be \(N, C, H, W\) uint8 with N labels"):
        Images(drawn(2, 1, 4), np.arange(3))
    with pytest.raises(DataError, match="one original per image"):
        Images(drawn(2, 1, 4), np.arange(2), np.arange(3))
