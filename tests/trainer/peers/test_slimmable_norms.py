import copy

import pytest
import torch
from torch import nn

from tests.trainer.peers.narrow import Dense, Mobile, enliven, narrow
from wenet_trainer.evaluate import logits, recalibrated
from wenet_trainer.models.small_resnet import SmallResNet
from wenet_trainer.norms import BatchNorm
from wenet_trainer.optimizer import open_optimizer
from wenet_trainer.peers.slimmable import Slimmable
from wenet_trainer.peers.slimmable_norms import SlimmableBatchNorm
from wenet_trainer.recipe import Recipe

LEVEL = 6


@pytest.fixture(params=[SmallResNet, Mobile, Dense])
def pair(request):
    """A slimmable network with shared γ and β at a narrow level, and the plain network that it is there."""
    torch.manual_seed(0)
    net = enliven(request.param())
    slimmable = enliven(Slimmable(net, shared_affine=1))
    slimmable.activate({"width": LEVEL})
    return slimmable, narrow(net, slimmable, LEVEL, 8)


def images(net, count=8):
    return torch.randn(count, 1 if isinstance(net.net, Dense) else 3, 32, 32)


def without_dropout(net):
    for module in net.train().modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return net


def plain_norms(net):
    return [module for module in net.modules() if isinstance(module, BatchNorm)]


def test_one_scale_and_one_shift_serve_all_widths_and_statistics_are_private():
    names = set(SlimmableBatchNorm(nn.BatchNorm2d(16), (16, 12, 8), shared_affine=True).state_dict())
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert names == {"widths.1.weight", "widths.1.bias"} | {f"widths.{n}.{s}" for n in (1, 2, 3) for s in statistics}


@pytest.mark.parametrize("shared_affine", [False, True])
def test_every_level_starts_from_the_first_channels_of_the_original(shared_affine):
    norm = enliven(nn.Sequential(nn.BatchNorm2d(16, eps=1e-3, momentum=0.2)))[0]
    slimmable, x = SlimmableBatchNorm(norm, (16, 8), shared_affine=shared_affine).eval(), torch.randn(2, 16, 3, 3)
    for level, channels in ((1, 16), (2, 8)):
        slimmable.level = level
        assert torch.allclose(slimmable(x[:, :channels]), norm(x)[:, :channels], atol=1e-6)
        assert slimmable.active().momentum == 0.2
    slimmable.affine_in_use()[0].data.zero_()
    assert norm.weight.min() > 0


def test_training_at_a_narrow_width_does_what_training_the_plain_narrow_network_does(pair):
    slimmable, plain = pair
    x = images(slimmable)
    for net in (slimmable, plain):
        for _ in range(2):
            without_dropout(net)(x).square().mean().backward()
    used = list(slimmable.norms_in_use().values())
    switches = [module for module in slimmable.modules() if isinstance(module, SlimmableBatchNorm)]
    for switch, norm, reference in zip(switches, used, plain_norms(plain), strict=True):
        assert switch.active() is norm
        for name, value in reference.named_buffers():
            assert torch.allclose(getattr(norm, name), value, rtol=1e-5, atol=1e-6)
        widest, channels = switch.widths["1"], norm.num_features
        for name, value in reference.named_parameters():
            gradient = getattr(widest, name).grad
            assert torch.allclose(gradient[:channels], value.grad, rtol=1e-3, atol=1e-5)
            assert not gradient[channels:].any()
        assert widest.num_batches_tracked == 0
        assert norm.num_batches_tracked == 2


def test_recalibrated_statistics_are_those_of_the_plain_narrow_network_and_the_stored_ones_return(pair):
    slimmable, plain = pair
    x = images(slimmable, 64)
    before = {name: value.clone() for name, value in slimmable.state_dict().items()}
    for norm in plain_norms(plain):
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True
    with torch.no_grad():
        plain(x)
    with recalibrated(slimmable, {"width": LEVEL}, x) as statistics:
        assert len(statistics) == 2 * len(plain_norms(plain))
        assert set(statistics) <= set(slimmable.state_dict())
        assert all(f".widths.{LEVEL}." in name for name in statistics)
        for norm, reference in zip(slimmable.norms_in_use().values(), plain_norms(plain), strict=True):
            assert torch.allclose(norm.running_mean, reference.running_mean, rtol=1e-4, atol=1e-5)
            assert torch.allclose(norm.running_var, reference.running_var, rtol=1e-4, atol=1e-5)
        right, answered = logits(plain, x[:4]), logits(slimmable, x[:4])
        assert float((answered - right).abs().max() / right.abs().max()) <= 1e-4
    stored = logits(slimmable, x[:4])
    assert float((stored - right).abs().max() / right.abs().max()) > 1e-3  # the control
    assert all(torch.equal(value, before[name]) for name, value in slimmable.state_dict().items())
    assert all(norm.momentum == 0.1 and not norm.training for norm in slimmable.norms_in_use().values())


def test_what_is_shared_is_never_decayed():
    net = Slimmable(SmallResNet(), shared_affine=1)
    shared = {id(p) for module in net.modules() if isinstance(module, SlimmableBatchNorm) for p in module.parameters()}
    groups = open_optimizer(net, Recipe()).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert shared
    assert decayed
    assert not shared & decayed


def test_a_copy_shares_within_itself():
    net = Slimmable(SmallResNet(), shared_affine=1).eval()
    copied, x = copy.deepcopy(net), torch.randn(2, 3, 32, 32)
    for one in (net, copied):
        one.activate({"width": LEVEL})
    before = logits(net, x)
    with torch.no_grad():
        for module in copied.modules():
            if isinstance(module, SlimmableBatchNorm):
                module.widths["1"].weight.mul_(2)
    assert torch.equal(logits(net, x), before)
    assert not torch.allclose(logits(copied, x), before)
