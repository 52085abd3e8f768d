import pytest
import torch
from torch import nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.models.small_resnet import SmallResNet
from wenet_trainer.peers.slimmable import Slimmable


def test_widths_that_keep_the_same_channels_are_one_level():
    net = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 128, 1), nn.Conv2d(128, 10, 1))
    slimmable = Slimmable(net, widths=(16, 15, 12, 8, 7), divisor=32)
    # 15/16 of 64 and of 128 round up to all of them, and 7/16 up to a half.
    assert slimmable.widths == (16, 12, 8)
    assert slimmable.levels == {"width": (1, 2, 3)}


def test_the_network_it_was_made_of_stays_as_it_was():
    net, x = SmallResNet().eval(), torch.randn(2, 3, 32, 32)
    before = net(x)
    slimmable = Slimmable(net)
    with torch.no_grad():
        for parameter in slimmable.parameters():
            parameter.zero_()
    assert torch.equal(net(x), before)


class Shared(nn.Module):
    """One convolution under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 1)
        self.one = self.two = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.two(self.one(self.stem(x))).mean((2, 3)))


def test_a_layer_with_two_names_stays_one_layer_and_is_counted_for_each_call():
    slimmable = Slimmable(Shared(), widths=(16, 8))
    assert slimmable.net.one is slimmable.net.two
    assert slimmable.macs({"width": 2}, (3, 4, 4)) == 16 * (3 * 16 + 2 * 16 * 16 * 9) + 16 * 5
    assert slimmable.params({"width": 2}) == (3 + 1) * 16 + 16 * 16 * 9 + 16 + 16 * 5 + 5


def test_a_convolution_that_gives_the_logits_keeps_them_all():
    net = nn.Sequential(nn.Conv2d(12, 32, 1), nn.ReLU(), nn.Conv2d(32, 24, 1))
    slimmable = Slimmable(net, widths=(16, 4))
    slimmable.activate({"width": 2})
    assert slimmable(torch.zeros(2, 12, 5, 5)).shape == (2, 24, 5, 5)
    assert slimmable.macs({"width": 2}, (12, 5, 5)) == 25 * (12 * 8 + 8 * 24)


class Wrong(nn.Module):
    """A stem, a middle and a classifier, called in this order."""

    def __init__(self, middle, flatten=False, head_first=False) -> None:
        super().__init__()
        if head_first:
            self.head = nn.Linear(32, 5)
        self.stem = nn.Conv2d(3, 32, 1)
        self.middle = middle
        if not head_first:
            self.head = nn.Linear(32 * 16 if flatten else 32, 5)
        self.flatten = flatten

    def forward(self, x):
        x = self.middle(self.stem(x))
        return self.head(x.flatten(1) if self.flatten else x.mean((2, 3)))


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (nn.Conv2d(32, 32, 1, groups=4), r"'middle': a convolution from 32 to 32 channels in 4 groups .* depthwise"),
        (nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular"), "'middle': .* pads with 'circular'"),
        (nn.GroupNorm(4, 32), "'middle': a GroupNorm cannot be slimmed: known are Conv2d"),
    ],
)
def test_a_layer_that_cannot_be_slimmed_is_refused_by_name(middle, message):
    with pytest.raises(NetworkError, match=message):
        Slimmable(Wrong(middle))


def test_channels_that_do_not_fit_are_refused_when_they_arrive():
    slimmable, x = Slimmable(Wrong(nn.ReLU(), flatten=True), widths=(16, 7)), torch.randn(2, 3, 4, 4)
    assert slimmable(x).shape == (2, 5)
    slimmable.activate({"width": 2})
    with pytest.raises(NetworkError, match="256 channels reach a layer that expects 224"):
        slimmable(x)


def test_a_classifier_that_is_not_defined_last_is_refused_rather_than_slimmed():
    with pytest.raises(NetworkError, match="answers 5 numbers, but the layer it defines last gives 32"):
        Slimmable(Wrong(nn.Conv2d(32, 32, 1), head_first=True))(torch.randn(2, 3, 4, 4))
