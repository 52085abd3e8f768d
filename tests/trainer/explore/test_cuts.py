import random

import pytest
import torch
from torch import nn

from tests.trainer.conftest import enliven_norm
from tests.trainer.convert import nets
from wenet_trainer.convert import convert
from wenet_trainer.explore.cuts import INPUT, OUTPUT, cut
from wenet_trainer.layers import WeightEnabledConv2d
from wenet_trainer.norms import SwitchableBatchNorm2d
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import set_active, weight_enabled


class Chain(nn.Module):
    """Two layers and their norms, for networks that do something unusual."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=4)
        self.first = WeightEnabledConv2d(32, 32, 1)
        self.first_bn = SwitchableBatchNorm2d(32, fed_by=self.first)
        self.second = WeightEnabledConv2d(32, 32, 1)
        self.second_bn = SwitchableBatchNorm2d(32, fed_by=self.second)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = torch.relu(self.first_bn(self.first(self.stem(x))))
        return self.head(torch.relu(self.second_bn(self.second(x))).mean((2, 3)))


class AsksWhatIsActive(Chain):
    def forward(self, x):
        return super().forward(x) * (2 if self.second.active_groups > 1 else 1)


class DecidesByValues(Chain):
    def forward(self, x):
        return super().forward(-x if x.mean() > 0 else x)


class NormsTwice(Chain):
    def forward(self, x):
        x = self.first_bn(self.first(self.stem(x)))
        x = self.first_bn(self.second(x))
        return self.head(self.second_bn(x).mean((2, 3)))


class ChangesTheShortcut(Chain):
    def forward(self, x):
        x = self.first_bn(self.first(self.stem(x)))
        y = self.second_bn(self.second(x))
        x.add_(y)
        return self.head(x.mean((2, 3)))


class ChangesAViewOfTheShortcut(Chain):
    def forward(self, x):
        x = self.first_bn(self.first(self.stem(x)))
        y = self.second_bn(self.second(x))
        x.flatten(1).narrow(1, 0, 100).add_(1)
        return self.head((x + y).mean((2, 3)))


class ReadsStatistics(Chain):
    def forward(self, x):
        return super().forward(x) + self.first_bn.running_mean.mean()


class HasAnOption(Chain):
    def forward(self, x, scale=None, times=2):
        return super().forward(x) * times


class NeverRunsOne(Chain):
    def forward(self, x):
        return self.head(self.first_bn(self.first(self.stem(x))).mean((2, 3)))


def enliven(net):
    for module in net.modules():
        enliven_norm(module)
    return net.eval()


def images(seed=0):
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def in_pieces(cuts, x):
    values = {INPUT: x}
    with torch.inference_mode():
        for segment in cuts.segments:
            segment.run(values)
    assert list(values) == [OUTPUT]
    return values[OUTPUT]


@pytest.mark.parametrize(
    "make",
    [Chain, NormsTwice, ChangesTheShortcut, ChangesAViewOfTheShortcut, HasAnOption, NeverRunsOne]
    + [AsksWhatIsActive, DecidesByValues, ReadsStatistics]
    + [lambda make=make: convert(make()).net for make in (nets.vgg, nets.Residual, nets.Bottlenecks)],
)
def test_run_in_pieces_a_network_answers_as_it_does_whole(make):
    torch.manual_seed(0)
    net = enliven(make())
    cuts, space, rng = cut(net, images()), SearchSpace.of(net), random.Random(0)
    for _ in range(8):
        set_active(net, space.sample(rng))
        x = images(1)
        with torch.inference_mode():
            expected = net(x.clone())
        assert torch.equal(in_pieces(cuts, x), expected)
    assert sorted(cuts.order) == sorted(weight_enabled(net))


def test_a_network_is_cut_before_every_layer_in_execution_order(supernet):
    cuts = cut(supernet, torch.randn(2, 1, 32, 32))
    assert cuts.why_whole is None
    assert [len(segment.layers) for segment in cuts.segments] == [0] + [1] * len(weight_enabled(supernet))
    if "blocks.0.downsample.0" in cuts.order:
        assert cuts.order.index("blocks.0.conv3") + 1 == cuts.order.index("blocks.0.downsample.0")


def test_a_converted_network_is_cut_at_its_layers():
    net = enliven(convert(nets.vgg()).net)
    assert len(cut(net, images()).segments) >= len(weight_enabled(net))


@pytest.mark.parametrize("make", [NormsTwice, ChangesTheShortcut, ChangesAViewOfTheShortcut])
def test_no_cut_stands_where_configurations_would_disturb_each_other(make):
    """Each of these shares the stem; `first` and `second` are in one segment."""
    cuts = cut(enliven(make()), images())
    assert cuts.why_whole is None
    assert [segment.layers for segment in cuts.segments] == [(), ("first", "second")]
    assert [segment.layers for segment in cut(enliven(Chain()), images()).segments] == [(), ("first",), ("second",)]


def test_a_layer_that_the_forward_does_not_show_decides_before_everything():
    cuts = cut(enliven(NeverRunsOne()), images())
    assert cuts.segments[0].layers == ("second",)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (AsksWhatIsActive, "another way for another configuration"),
        (DecidesByValues, "cannot be traced"),
        (ReadsStatistics, "reads a batch norm's statistics"),
    ],
)
def test_a_forward_that_cannot_be_followed_is_left_whole_and_says_why(make, why):
    net = enliven(make())
    cuts = cut(net, images())
    assert why in cuts.why_whole
    assert [set(segment.layers) for segment in cuts.segments] == [set(weight_enabled(net))]
