import copy

import pytest
import torch

from benchmarks.plain_ways import by_autograd, masked
from tests.trainer.conftest import lively
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import set_active


@pytest.mark.parametrize("groups", [1, 2, 16])
@pytest.mark.parametrize("way", [lambda net: masked(net, {}), by_autograd], ids=["masked", "by autograd"])
def test_a_plain_way_gives_the_same_answers_and_gradients(way, groups):
    net = lively("tiny").train()
    other = copy.deepcopy(net)
    x = torch.randn(4, 1, 32, 32)
    for one in (net, other):
        set_active(one, SearchSpace.of(one).uniform(groups))
    net(x).square().sum().backward()
    with way(other):
        out = other(x)
        out.square().sum().backward()
    assert "forward" not in vars(other.conv)
    for (name, ours), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        if ours.grad is not None and ours.grad.abs().max() > 0:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_the_masks_matter():
    net = lively("tiny")
    x = torch.randn(4, 1, 32, 32)
    set_active(net, SearchSpace.of(net).uniform(8))
    expected, masks = net(x), {}
    with masked(net, masks):
        torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
        for mask in masks.values():
            mask.fill_(1.0)
        assert not torch.allclose(net(x), expected, atol=1e-2)
