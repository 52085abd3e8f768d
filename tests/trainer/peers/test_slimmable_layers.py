import pytest
import torch
from torch import nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.peers.slimmable_layers import SlimmableConv2d, SlimmableLinear, kept_channels
from wenet_trainer.peers.slimmable_norms import SlimmableBatchNorm


@pytest.mark.parametrize(
    ("channels", "sixteenths", "divisor", "kept"),
    [
        (64, 8, 8, 32),
        (64, 7, 8, 32),  # 28 lies half-way: up
        (64, 5, 8, 24),  # 20 lies half-way: up
        (96, 7, 8, 40),  # 42
        (32, 1, 8, 8),  # at least the divisor
        (64, 1, 1, 4),
        (4, 1, 8, 4),  # no more than there are
        (20, 15, 8, 16),  # 18.75
        (20, 16, 8, 20),  # all at full width
    ],
)
def test_channels_are_rounded_to_the_nearest_multiple(channels, sixteenths, divisor, kept):
    assert kept_channels(channels, sixteenths, divisor) == kept


def test_what_is_in_use_is_a_view_of_the_full_weight():
    conv = SlimmableConv2d(nn.Conv2d(8, 16, 3), (8, 4), (16, 8))
    depthwise = SlimmableConv2d(nn.Conv2d(16, 16, 3, groups=16), (16, 8), (16, 8))
    linear = SlimmableLinear(nn.Linear(16, 10), (16, 8), (10, 10))
    shapes = {conv: (8, 4, 3, 3), depthwise: (8, 1, 3, 3), linear: (10, 8)}
    for layer, shape in shapes.items():
        layer.level = 2
        weight, bias = layer.active()
        assert weight.shape == shape
        assert len(bias) == len(weight)
        assert weight.untyped_storage().data_ptr() == layer.weight.untyped_storage().data_ptr()
    assert conv(torch.zeros(1, 4, 5, 5)).shape == (1, 8, 3, 3)
    assert depthwise(torch.zeros(1, 8, 5, 5)).shape == (1, 8, 3, 3)
    assert linear(torch.zeros(3, 8)).shape == (3, 10)


def test_other_channels_than_the_level_brings_are_refused():
    conv = SlimmableConv2d(nn.Conv2d(8, 16, 3), (8, 4), (16, 8))
    linear = SlimmableLinear(nn.Linear(16, 10), (16, 8), (10, 10))
    norm = SlimmableBatchNorm(nn.BatchNorm2d(16), (16, 8))
    for layer, x in ((conv, torch.zeros(1, 6, 5, 5)), (linear, torch.zeros(3, 12)), (norm, torch.zeros(1, 12, 5, 5))):
        layer.level = 2
        with pytest.raises(NetworkError, match="channels reach a layer that expects"):
            layer(x)
