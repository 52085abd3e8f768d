"""Shuffles stand between two layers that only see each other, at every other such place, and nowhere else."""

import copy

import pytest
import torch
from torch import nn

from tests.trainer.convert.nets import Headed, conv_bn, make
from wenet_trainer.convert import convert
from wenet_trainer.convert.parts import ShuffledConv2d, ShuffledGroupedConv2d
from wenet_trainer.models.resnet import ResNet50
from wenet_trainer.supernet import shuffles, switchable_norms


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vgg", {"4": "8", "12": "16"}),
        ("residual", {"body.0.conv1": "body.0.conv2", "body.1.conv1": "body.1.conv2"}),
        ("bottlenecks", {"body.0.conv1": "body.0.conv2", "body.1.conv1": "body.1.conv2"}),
        ("resnext", {"body.0.conv1": "body.0.conv2", "body.1.conv1": "body.1.conv2"}),
        ("mobile", {"body.0.expand.0": "body.0.depthwise.0", "body.1.expand.0": "body.1.depthwise.0"}),
        ("functional", {"conv1": "conv2", "conv3": "conv4"}),
        ("dense", {"conv1": "conv2"}),
        ("inception", {"right.0": "right.3"}),
        ("activated", {"body.0": "body.2"}),
        ("odd", {}),
    ],
)
def test_places(name, expected):
    conversion = convert(make(name))
    assert dict(conversion.shuffles) == expected
    assert set(shuffles(conversion.net)) == {f"{reader}.shuffle" for reader in expected.values()}


def test_a_norm_behind_fixed_groups_is_switched_by_the_layer_before_them():
    norms = convert(make("mobile")).norms
    assert norms["body.0.expand.1"] == norms["body.0.depthwise.1"] == "body.0.expand.0"
    assert norms["body.0.project.1"] == "body.0.project.0"
    assert convert(make("activated")).norms["body.3"] == "body.0"
    assert convert(make("resnext")).norms["body.1.bn2"] == "body.1.conv1"


def test_a_norm_behind_a_sum_a_join_or_the_stem_stays_fixed():
    norms = convert(make("dense")).norms
    assert norms == {"bn2": "conv1", "last": "transition"}
    assert "stem.1" not in convert(make("residual")).norms


class Branching(Headed):
    """conv → bn → relu → conv, where `see` does something with a value between the two."""

    def __init__(self, see, place):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(32, 64)
        self.conv2, self.bn2 = conv_bn(64, 32)
        self.see, self.place = see, place

    def body(self, x):
        values = [self.conv1(x)]
        values.append(self.bn1(values[-1]))
        values.append(values[-1].relu())
        out = self.bn2(self.conv2(values[-1]))
        return out if self.see is None else out + self.see(values[self.place])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_value_that_anything_else_reads_is_not_permuted(place):
    assert convert(Branching(None, place)).shuffles == {"conv1": "conv2"}
    seeing = Branching(lambda value: value[:, :32], place).eval()
    conversion = convert(seeing)
    assert conversion.shuffles == {}
    pixels = torch.randn(2, 3, 16, 16)
    assert torch.allclose(conversion.net.eval()(pixels), seeing(pixels), atol=1e-5)


def test_asking_for_a_shape_is_no_reading():
    assert convert(Branching(lambda value: value.shape[2] + value.size(3) + value.ndim, 1)).shuffles


def test_a_value_that_only_training_reads_is_not_permuted_either():
    class Auxiliary(Branching):
        def body(self, x):
            between = self.bn1(self.conv1(x)).relu()
            out = self.bn2(self.conv2(between))
            return out + between[:, :32] if self.training else out

    assert convert(Auxiliary(None, 0)).shuffles == {}


def test_what_mixes_channels_stops_the_search():
    for between in (nn.GroupNorm(4, 64), nn.PReLU(64), nn.ChannelShuffle(4), nn.LocalResponseNorm(3)):
        rows = [*conv_bn(32, 64), between, *conv_bn(64, 64)]
        assert convert(nn.Sequential(*rows, nn.Flatten(), nn.Linear(64, 5))).shuffles == {}
    for between in (nn.PReLU(), nn.Softmax(1), nn.Upsample(scale_factor=2), nn.Dropout2d(), nn.ZeroPad2d(1)):
        rows = [*conv_bn(32, 64), between, *conv_bn(64, 64)]
        assert convert(nn.Sequential(*rows, nn.Flatten(), nn.Linear(64, 5))).shuffles == {"0": "3"}


def test_a_depthwise_convolution_that_leads_to_no_layer_gets_no_shuffle():
    rows = [*conv_bn(32, 64), nn.ReLU(), *conv_bn(64, 64, 3, groups=64), nn.ReLU()]
    ends = nn.Sequential(*rows, nn.Flatten(), nn.Linear(64, 5))
    goes_on = nn.Sequential(*rows, *conv_bn(64, 32), nn.Flatten(), nn.Linear(32, 5))
    assert convert(ends).shuffles == {}
    assert convert(goes_on).shuffles == {"0": "3"}


def test_a_depthwise_convolution_that_is_used_twice_gets_no_shuffle():
    class Twice(Headed):
        def __init__(self):
            super().__init__()
            self.conv1, self.depthwise, self.conv2 = (
                nn.Conv2d(32, 32, 1),
                nn.Conv2d(32, 32, 3, padding=1, groups=32),
                nn.Conv2d(32, 32, 1),
            )

        def body(self, x):
            return self.conv2(self.depthwise(self.depthwise(self.conv1(x)).relu()))

    conversion = convert(Twice())
    assert conversion.shuffles == {}
    assert "no shuffle after it: 'depthwise' behind it is used more than once in the forward" in {
        note.reason for note in conversion.notes
    }


def test_the_shuffle_stands_in_the_layer_that_reads_it():
    net = convert(make("mobile")).net
    assert isinstance(net.body[0].depthwise[0], ShuffledGroupedConv2d)
    assert isinstance(convert(make("residual")).net.body[0].conv2, ShuffledConv2d)


def test_a_plain_twin_of_our_resnet50_gets_its_layers_norms_and_shuffles():
    ours = ResNet50(classes=5, width=32, layers=(1, 2, 1, 1))
    conversion = convert(plain(copy.deepcopy(ours)))
    names = {module: name for name, module in ours.named_modules()}
    assert dict(conversion.norms) == {names[switch]: names[switch.fed_by] for switch in switchable_norms(ours).values()}
    assert [f"{layer.removesuffix('.conv1')}.shuffle" for layer in conversion.shuffles] == list(shuffles(ours))
    assert list(conversion.net.state_dict()) == list(ours.state_dict())


def plain(net):
    """The supernet's own modules made plain again."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            kind = type(child).__name__
            if kind == "WeightEnabledConv2d":
                made = nn.Conv2d(
                    child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding, bias=False
                )
            elif kind == "SwitchableBatchNorm2d":
                made = nn.BatchNorm2d(child.num_features)
            elif kind == "ChannelShuffle":
                made = nn.Identity()
            else:
                continue
            setattr(parent, name, made)
    return net
