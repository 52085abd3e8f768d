"""The layers that only a converted network has."""

import torch
from torch import nn

from tests.trainer.convert.nets import BatchNormAct2d, enliven
from wenet_trainer.convert.parts import (
    ShuffledConv2d,
    ShuffledGroupedConv2d,
    SwitchableBatchNormAct2d,
    has_hooks,
    own_activation,
)
from wenet_trainer.layers import ChannelShuffle, WeightEnabledConv2d
from wenet_trainer.norms import SwitchableBatchNorm2d


def test_a_shuffled_convolution_is_a_shuffle_and_a_convolution_in_every_pattern():
    shuffled, plain = ShuffledConv2d(32, 64, 3, padding=1), WeightEnabledConv2d(32, 64, 3, padding=1)
    plain.load_state_dict(shuffled.state_dict())
    image = torch.randn(2, 32, 9, 9)
    for groups in shuffled.groups_allowed:
        shuffled.set_groups(groups)
        plain.set_groups(groups)
        assert torch.equal(shuffled(image), plain(ChannelShuffle(32)(image)))
    assert not torch.allclose(shuffled(image), plain(image))


def test_a_shuffled_grouped_convolution_is_a_shuffle_and_a_grouped_convolution():
    shuffled, plain = ShuffledGroupedConv2d(32, 32, 3, groups=8), nn.Conv2d(32, 32, 3, groups=8)
    plain.load_state_dict(shuffled.state_dict())
    image = torch.randn(2, 32, 9, 9)
    assert torch.equal(shuffled(image), plain(ChannelShuffle(32)(image)))
    assert not torch.allclose(shuffled(image), plain(image))


def test_a_norm_with_an_activation_switches_and_activates():
    layer = WeightEnabledConv2d(32, 32, 1)
    inner = SwitchableBatchNorm2d(32, fed_by=layer)
    norm = SwitchableBatchNormAct2d(32, fed_by=layer, drop=nn.Identity(), act=nn.SiLU())
    enliven(norm)
    enliven(inner).load_state_dict(norm.state_dict())
    image = torch.randn(2, 32, 4, 4)
    for groups in layer.groups_allowed:
        layer.set_groups(groups)
        assert torch.equal(norm(image), nn.functional.silu(inner(image)))


def test_an_activation_inside_a_norm_is_known_by_what_it_does_not_by_its_class():
    norm = enliven(BatchNormAct2d(32, nn.SiLU(inplace=True))).train()
    assert own_activation(norm) == (norm.drop, norm.act)
    assert norm.training
    assert norm.act.training
    other = type("Other", (BatchNormAct2d,), {"forward": lambda self, x: x + self.act(x)})(32, nn.ReLU())
    broken = type("Broken", (BatchNormAct2d,), {"forward": lambda self, x, y: x})(32, nn.ReLU())
    assert own_activation(other) is None
    assert own_activation(broken) is None
    assert own_activation(nn.BatchNorm2d(32)) is None
    assert own_activation(nn.ReLU()) is None


def test_hooks_are_seen():
    layer = nn.ReLU()
    assert not has_hooks(layer)
    layer.register_forward_pre_hook(lambda module, inputs: None)
    assert has_hooks(layer)
