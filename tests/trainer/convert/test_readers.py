"""What reads a layer's numbers or values beside the next layer; a permutation of them would be seen there.

Every case is converted and compared with the original in both modes; without it, there is a shuffle.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.trainer.convert.nets import BatchNormAct2d, Headed, conv_bn, enliven
from wenet_trainer.convert import Note, convert

SAME = 2e-6


class Pair(Headed):
    """conv1 → bn1 → relu → conv2; `see` is given the network, its input and the value between, and adds to it."""

    def __init__(self, see=None):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(32, 64)
        self.conv2, self.bn2 = conv_bn(64, 32)
        self.see = see

    def body(self, x):
        between = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(between))
        return out if self.see is None else out + self.see(self, x, between)


class Twins(Pair):
    """A second norm beside the first."""

    def __init__(self):
        super().__init__(lambda net, x, _: net.back(net.bn3(net.conv3(x)).relu()))
        self.conv3, self.bn3 = conv_bn(32, 64)
        self.back = nn.Conv2d(64, 32, 1)


class Changed(nn.Module):
    """Favours the first channels in training."""

    def forward(self, x):
        return torch.cat([x[:, :8] * 3, x[:, 8:]], 1) if self.training else x


@torch.no_grad()
def same(model):
    """The conversion, if it answers in both modes as the original does."""
    torch.manual_seed(1)
    enliven(model)
    conversion = convert(model)
    pixels = torch.randn(4, 3, 16, 16)
    for training in (True, False):
        expected = copy.deepcopy(model).train(training)(pixels)
        found = copy.deepcopy(conversion.net).train(training)(pixels)
        deviation = (found - expected).abs().max() / expected.abs().max()
        assert deviation <= SAME * (10 if training else 1)
    return conversion


def weigh(numbers, x):
    """A sum over channels that an order of the numbers changes."""
    return x + (numbers * torch.arange(64.0)).sum() * 1e-2


def test_a_plain_pair_has_a_shuffle():
    conversion = same(Pair())
    assert conversion.shuffles == {"conv1": "conv2"}
    assert conversion.layers == ("conv1", "conv2")
    assert conversion.norms == {"bn1": "conv1", "bn2": "conv2"}


@pytest.mark.parametrize(
    "see",
    [
        lambda net, x, _: F.conv_transpose2d(F.conv2d(x, net.conv1.weight), net.conv1.weight),
        lambda net, x, _: weigh(net.conv1.weight.flatten(1).sum(1), x),
        lambda net, x, _: F.conv2d(x, next(net.conv1.parameters()))[:, 8:40] if net.training else x,
    ],
)
def test_a_convolution_whose_weight_the_forward_reads_is_left_alone(see):
    conversion = same(Pair(see))
    assert conversion.layers == ("conv2",)
    assert Note("conv1", "its weight is also read outside of it") in conversion.notes


@pytest.mark.parametrize(
    "see",
    [
        lambda net, x, _: weigh(net.bn1.weight, x),
        lambda net, x, _: weigh(net.bn1.bias, x),
        lambda net, x, _: weigh(net.bn1.running_mean, x),
        lambda net, x, _: weigh(net.bn1.running_var, x) if net.training else x,
    ],
)
def test_a_norm_whose_numbers_the_forward_reads_stays_one_and_is_not_moved(see):
    conversion = same(Pair(see))
    assert conversion.layers == ("conv1", "conv2")
    assert conversion.norms == {"bn2": "conv2"}
    assert conversion.shuffles == {}
    assert Note("bn1", "stays one fixed norm: its numbers are also read outside of it") in conversion.notes


def test_asking_for_the_shape_or_type_of_numbers_or_whether_there_are_any_is_no_reading():
    def see(net, x, _):
        net.bn1.weight.shape  # noqa: B018
        return x.to(net.conv1.weight.dtype) if net.conv1.bias is None else x

    assert same(Pair(see)).shuffles == {"conv1": "conv2"}


@pytest.mark.parametrize("names", [("weight", "bias"), ("bias",), ("running_mean",)])
def test_norms_that_share_numbers_stay_fixed_and_are_not_moved(names):
    apart = same(Twins())
    assert apart.norms.keys() >= {"bn1", "bn3"}
    assert apart.shuffles
    model = Twins()
    for name in names:
        setattr(model.bn3, name, getattr(model.bn1, name))
    conversion = same(model)
    assert conversion.norms.keys() == {"bn2"}
    assert conversion.shuffles == {}
    for name in ("bn1", "bn3"):
        note = Note(name, "stays one fixed norm: it shares its parameters or statistics with another module")
        assert note in conversion.notes
    assert all(getattr(conversion.net.bn3, name) is getattr(conversion.net.bn1, name) for name in names)


def test_a_value_that_is_converted_to_another_type_is_read():
    conversion = same(Pair(lambda net, x, between: between.type(torch.float32)[:, :32]))
    assert conversion.shuffles == {}


def test_a_forward_set_on_a_layer_or_a_norm_is_kept():
    model = Pair()
    plain = model.conv2
    plain.forward = lambda x: F.conv2d(x, plain.weight * 2, plain.bias)
    conversion = same(model)
    assert conversion.layers == ("conv1",)
    assert conversion.shuffles == {}
    assert Note("conv2", "has hooks, or a method set on the object") in conversion.notes
    model = Pair()
    norm = model.bn1
    norm.forward = lambda x: F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias) * 2
    conversion = same(model)
    assert conversion.norms == {"bn2": "conv2"}
    assert conversion.shuffles == {}
    assert Note("bn1", "stays one fixed norm: it has hooks, or a method set on the object") in conversion.notes


def test_a_module_that_mixes_channels_in_training_only_stops_the_search():
    rows = [*conv_bn(3, 32), *conv_bn(32, 64), Changed(), *conv_bn(64, 32)]
    assert same(nn.Sequential(*rows, nn.Flatten(), nn.Linear(32 * 256, 5))).shuffles == {}
    rows[4] = nn.ReLU()
    assert same(nn.Sequential(*rows, nn.Flatten(), nn.Linear(32 * 256, 5))).shuffles == {"2": "5"}


def test_a_norm_with_an_activation_that_freezes_its_statistics_in_training_is_kept():
    class Frozen(BatchNormAct2d):
        def forward(self, x):
            numbers = self.running_mean, self.running_var, self.weight, self.bias
            return self.act(F.batch_norm(x, *numbers, training=False, eps=self.eps))

    model = Pair()
    model.bn1 = Frozen(64, nn.Identity())
    assert same(model).norms == {"bn2": "conv2"}
    model.bn1 = BatchNormAct2d(64, nn.Identity())
    assert same(model).norms == {"bn1": "conv1", "bn2": "conv2"}


def test_a_hook_on_a_norm_with_an_activation_does_not_fire_while_converting():
    model, seen = Pair(), []
    model.bn1 = BatchNormAct2d(64, nn.Identity())
    model.bn1.register_forward_hook(lambda *found: seen.append(found))
    assert convert(model).norms == {"bn2": "conv2"}
    assert seen == []


@pytest.mark.parametrize("size", [16, 28])
def test_a_pooling_of_a_large_window_leaves_a_map_to_convert_behind_it(size):
    rows = [*conv_bn(3, 32), nn.AvgPool2d(size), *conv_bn(32, 64), nn.ReLU(), *conv_bn(64, 32)]
    conversion = convert(nn.Sequential(*rows, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)))
    assert conversion.layers == ("3", "6")
    rows = [*conv_bn(3, 32), *conv_bn(32, 64), nn.AvgPool2d(size), *conv_bn(64, 32)]
    conversion = convert(nn.Sequential(*rows, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)))
    assert conversion.shuffles == {"2": "5"}
