"""The layers that only a converted network has."""

import pytest
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


class Frozen(BatchNormAct2d):
    """Never learns statistics."""

    def forward(self, x):
        numbers = self.running_mean, self.running_var, self.weight, self.bias
        return self.act(self.drop(nn.functional.batch_norm(x, *numbers, False, 0.0, self.eps)))


class Louder(BatchNormAct2d):
    """Something of its own in training."""

    def forward(self, x):
        return super().forward(x) * (2 if self.training else 1)


class Forgetful(BatchNormAct2d):
    """Keeps other statistics than it says."""

    def forward(self, x):
        found = super().forward(x)
        self.running_mean.zero_()
        return found if self.training else super().forward(x)


@pytest.mark.parametrize("kind", [Frozen, Louder, Forgetful])
def test_an_activation_inside_a_norm_that_trains_in_another_way_is_not_known(kind):
    norm = kind(32, nn.ReLU())
    with torch.no_grad():
        assert torch.equal(
            norm.eval()(torch.ones(1, 32, 4, 4)), BatchNormAct2d(32, nn.ReLU()).eval()(torch.ones(1, 32, 4, 4))
        )
    assert own_activation(norm) is None


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
def test_an_activation_inside_a_norm_is_known_with_dropout_and_any_momentum_and_nothing_of_it_changes(momentum):
    norm = enliven(BatchNormAct2d(32, nn.SiLU(inplace=True))).train()
    norm.drop, norm.momentum = nn.Dropout2d(), momentum
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    state = torch.get_rng_state()
    assert own_activation(norm) == (norm.drop, norm.act)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("hooked", [lambda norm: norm, lambda norm: norm.act])
def test_a_norm_with_hooks_is_never_run(hooked):
    norm, seen = BatchNormAct2d(32, nn.ReLU()), []
    hooked(norm).register_forward_hook(lambda *found: seen.append(found))
    assert own_activation(norm) is None
    assert seen == []


def test_hooks_are_seen():
    layer = nn.ReLU()
    assert not has_hooks(layer)
    layer.register_forward_pre_hook(lambda module, inputs: None)
    assert has_hooks(layer)
    assert has_hooks(nn.Sequential(layer))


@pytest.mark.parametrize("name", ["forward", "_conv_forward"])
def test_a_method_set_on_the_object_counts_as_a_hook(name):
    layer = nn.Conv2d(3, 3, 1)
    layer.note = print  # nothing that the class calls
    assert not has_hooks(layer)
    setattr(layer, name, lambda *values: values[0])
    assert has_hooks(layer)
