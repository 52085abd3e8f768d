import random

import pytest
import torch
from torch import nn

from tests.trainer.peers.narrow import Dense, Mobile, enliven, kept, narrow
from wenet_trainer.cost import measure_costs
from wenet_trainer.errors import NetworkError
from wenet_trainer.evaluate import accuracy, logits, recalibrated
from wenet_trainer.models.digits_resnet import DigitsResNet
from wenet_trainer.models.small_resnet import SmallResNet
from wenet_trainer.models.tiny import TinyNet
from wenet_trainer.peers.slimmable import WIDTHS, Slimmable
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import Flexible, active_norms, set_active, shuffles

NETWORKS = {
    "small": (SmallResNet, 3),
    "digits": (lambda: DigitsResNet(16, 64), 1),
    "tiny": (TinyNet, 1),
    "mobile": (Mobile, 3),
    "dense": (Dense, 1),
}


@pytest.fixture(params=NETWORKS)
def made(request):
    """A network and an image's shape."""
    torch.manual_seed(0)
    build, channels = NETWORKS[request.param]
    return enliven(build()), (channels, 32, 32)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return enliven(Slimmable(SmallResNet()))


def answers(net, x):
    with torch.inference_mode():
        return net(x)


def furthest(left, right):
    return float((left - right).abs().max() / right.abs().max())


@pytest.mark.parametrize("shared_affine", [0, 1])
@pytest.mark.parametrize("divisor", [1, 4, 8])
def test_a_slimmed_network_answers_as_a_plain_network_of_the_sliced_weights(made, divisor, shared_affine):
    net, shape = made
    slimmable, x = enliven(Slimmable(net, divisor=divisor, shared_affine=shared_affine)), torch.randn(2, *shape)
    last = slimmable.levels["width"][-1]
    for level in {1, last, *random.Random(divisor).sample(range(2, last), 3)}:
        slimmable.activate({"width": level})
        assert furthest(answers(slimmable, x), answers(narrow(net, slimmable, level, divisor), x)) <= 1e-6
    slimmable.activate({"width": last})
    wrong = narrow(net, slimmable, last, divisor, norms_of=1)  # the control: another width's norms, or statistics
    assert furthest(answers(slimmable, x), answers(wrong, x)) > 1e-3


def test_at_full_width_it_answers_as_the_original_without_shuffles(made):
    net, shape = made
    slimmable, x = Slimmable(net), torch.randn(2, *shape)
    shuffled = answers(net, x)
    for shuffle in shuffles(net).values():
        assert furthest(answers(slimmable.eval(), x), shuffled) > 1e-3  # shuffles do something: the control
        shuffle.permutation = torch.arange(shuffle.channels)
    assert torch.equal(answers(slimmable.eval(), x), answers(net, x))


@pytest.mark.parametrize(
    ("full", "half", "channels"),
    [
        (lambda: SmallResNet(24, 64, 2), lambda: SmallResNet(24, 32, 2), 3),
        (lambda: DigitsResNet(32, 128), lambda: DigitsResNet(16, 64), 1),
        (lambda: TinyNet(64), lambda: TinyNet(32), 1),
    ],
)
def test_half_the_width_costs_what_the_same_network_built_half_as_wide_costs(full, half, channels):
    shape = (channels, 32, 32)
    slimmable, built = Slimmable(full(), widths=(16, 8)), half()
    costs, config = measure_costs(built, shape), SearchSpace.of(built).full()
    assert slimmable.macs({"width": 2}, shape) == costs.macs(config)
    assert slimmable.params({"width": 2}) == costs.params(config)


@pytest.mark.parametrize(("divisor", "shared_affine"), [(1, 0), (8, 0), (8, 1)])
def test_costs_at_every_width_equal_a_count_over_the_plain_narrow_network(made, divisor, shared_affine):
    net, shape = made
    slimmable = Slimmable(net, divisor=divisor, shared_affine=shared_affine)
    for level in slimmable.levels["width"]:
        reference = narrow(net, slimmable, level, divisor)
        costs = measure_costs(reference, shape)
        assert slimmable.macs({"width": level}, shape) == costs.fixed_macs
        assert (
            slimmable.params({"width": level}) == costs.fixed_params == sum(p.numel() for p in reference.parameters())
        )


def test_measuring_leaves_the_network_as_it_was(small):
    small.train().activate({"width": 3})
    before = {name: value.clone() for name, value in small.state_dict().items()}
    norms = set(small.norms_in_use())
    small.macs({"width": 7}, (3, 32, 32))
    small.params({"width": 9})
    assert small.training
    assert set(small.norms_in_use()) == norms
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert not any(module._forward_hooks for module in small.modules())


def test_widths_reach_from_the_full_network_to_less_than_a_tenth_of_its_arithmetic():
    for net, channels in ((SmallResNet(), 3), (DigitsResNet(), 1)):
        slimmable = Slimmable(net)
        assert 12 <= len(slimmable.levels["width"]) <= 16
        macs = [slimmable.macs({"width": level}, (channels, 32, 32)) for level in slimmable.levels["width"]]
        assert macs == sorted(set(macs), reverse=True)
        assert macs[-1] <= 0.1 * macs[0]


def test_gradients_reach_the_slices_and_the_norms_of_the_active_width_only(small):
    small.train().activate({"width": len(small.widths)})
    small(torch.randn(4, 3, 32, 32)).square().sum().backward()
    conv, stem, head = small.net.blocks[1].conv2, small.net.stem, small.net.head
    inner, first, last = (kept(layer.weight.shape[1 if layer is head else 0], 4, 8) for layer in (conv, stem, head))
    assert conv.weight.grad[:inner, :inner].abs().min() > 0
    assert not conv.weight.grad[inner:].any()
    assert not conv.weight.grad[:, inner:].any()
    assert stem.weight.grad[:first].abs().min() > 0
    assert not stem.weight.grad[first:].any()
    assert head.weight.grad[:, :last].any(1).all()
    assert not head.weight.grad[:, last:].any()
    used = {id(p) for norm in small.norms_in_use().values() for p in norm.parameters()}
    norms = [p for m in small.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    assert {id(p) for p in norms if p.grad is not None} == used
    small.zero_grad()
    small.activate({"width": 1})
    small(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert conv.weight.grad[inner:].any()  # the control: elsewhere there are gradients at another width


def test_training_at_one_width_moves_the_statistics_of_that_width_only(small):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    small.train().activate({"width": 5})
    small(torch.randn(4, 3, 32, 32))
    moved = {name for name, value in small.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(".widths.5." in name for name in moved)


def test_the_harness_switches_recalibrates_and_rates_it_like_any_network(small):
    assert isinstance(small, Flexible)
    space, x = SearchSpace.of(small), torch.randn(64, 3, 32, 32)
    assert dict(space.full()) == {"width": 1}
    assert dict(space.smallest()) == {"width": len(WIDTHS)}
    assert len(space.uniforms()) == len(WIDTHS)
    assert {space.sample(random.Random(n))["width"] for n in range(200)} == set(range(1, len(WIDTHS) + 1))
    config = space.uniform(4)
    with recalibrated(small, config, x) as statistics:
        assert set(statistics) <= set(small.state_dict())
        assert all(".widths.4." in name for name in statistics)
        mean = torch.from_numpy(statistics["net.stem_bn.widths.4.running_mean"])
        stem = small.net.stem(x).detach()
        assert torch.allclose(mean, stem.mean((0, 2, 3)), atol=1e-5)
        right = logits(small, x).argmax(1).numpy()
        assert accuracy(small, config, x, right).value == 1.0
    set_active(small, space.smallest())
    assert set(active_norms(small)) == set(small.norms_in_use())


def test_one_width_alone_is_a_static_small_network(small):
    static = Slimmable(SmallResNet(), widths=(6,))
    assert static.levels == {"width": (1,)}
    assert SearchSpace.of(static).uniforms() == (SearchSpace.of(static).full(),)
    level = small.widths.index(6) + 1
    assert static.macs({"width": 1}, (3, 32, 32)) == small.macs({"width": level}, (3, 32, 32))


def test_impossible_widths_and_configurations_are_refused(small):
    for widths in ((), (8, 16), (16, 16, 8), (17, 4), (16, 0)):
        with pytest.raises(NetworkError, match="give sixteenths from 16 down to 1"):
            Slimmable(SmallResNet(), widths=widths)
    with pytest.raises(NetworkError, match="divisor of channel counts is 0"):
        Slimmable(SmallResNet(), divisor=0)
    with pytest.raises(NetworkError, match="shared_affine is 2: give 1 to share"):
        Slimmable(SmallResNet(), shared_affine=2)
    with pytest.raises(NetworkError, match="nothing can be slimmed"):
        Slimmable(nn.ReLU())
    for config in ({"width": 14}, {"width": 0}, {"exit": 1}, {}, {"width": 1, "exit": 1}):
        with pytest.raises(NetworkError, match="with a level from 1 to 13"):
            small.activate(config)
