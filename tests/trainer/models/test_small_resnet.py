import pytest
import torch

from wenet_trainer.cost import measure_costs
from wenet_trainer.errors import NetworkError
from wenet_trainer.models import build
from wenet_trainer.models.small_resnet import SmallResNet
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import set_active, shuffles, weight_enabled


def test_every_block_convolution_reaches_sixteen_groups():
    for net in (SmallResNet(), SmallResNet(width=32, depth=4)):
        layers = weight_enabled(net)
        assert all(max(layer.groups_allowed) == 16 for layer in layers.values())
        assert not {"stem", "head"} & set(layers)
        assert len(shuffles(net)) == len(net.blocks)


def test_most_of_the_arithmetic_shrinks_with_the_pattern():
    net = SmallResNet()
    costs, space = measure_costs(net, (3, 32, 32)), SearchSpace.of(net)
    full, smallest = (costs.macs(config) for config in (space.full(), space.smallest()))
    assert 3e6 < full < 14e6
    assert smallest <= 0.15 * full


def test_arguments_change_classes_width_and_depth():
    net = build("small_resnet", {"classes": 5, "width": 32, "depth": 2}).eval()
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert net.stem.out_channels == 32
    assert len(net.blocks) == 2


def test_every_pattern_learns():
    torch.manual_seed(0)
    net = SmallResNet()
    for config in SearchSpace.of(net).uniforms():
        set_active(net, config)
        net(torch.randn(4, 3, 32, 32)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


@pytest.mark.parametrize("arguments", [{"width": 24}, {"width": 0}, {"classes": 0}, {"depth": 1}])
def test_what_makes_no_network_is_refused(arguments):
    with pytest.raises(NetworkError, match="make no network"):
        SmallResNet(**arguments)
