"""Whatever is converted computes what it computed, in torch and in the materialized ONNX model."""

import copy
import random

import pytest
import torch

from tests.trainer.convert.nets import NETS, SHAPE, make
from wenet_trainer.convert import convert
from wenet_trainer.cost import measure_costs
from wenet_trainer.export import TOLERANCE, relative_deviation, torch_answers
from wenet_trainer.norms import SwitchableBatchNorm
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import set_active, shuffles, switchable_norms, weight_enabled
from wenet_trainer.topology import describe

SAME = 2e-6  # of the largest answer: sums over reordered channels round differently


@pytest.fixture(params=NETS)
def original(request):
    return make(request.param)


def deviation(found, reference):
    return float((found - reference).abs().max() / reference.abs().max())


def images(count=4, seed=0):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def answers(net, pixels, *, training=False):
    torch.manual_seed(1)  # for dropout
    return net.train(training)(pixels)


def test_the_full_network_answers_as_the_original_does(original):
    reference = answers(original, images())
    assert deviation(reference[:1], reference[1:2]) > 1000 * SAME  # else the images would not matter
    for shuffle in (True, False):
        conversion = convert(original, shuffle=shuffle)
        assert bool(shuffles(conversion.net)) == bool(conversion.shuffles)
        assert shuffle or not conversion.shuffles
        assert deviation(answers(conversion.net, images()), reference) <= SAME


def test_the_full_network_trains_as_the_original_does(original):
    original.rate = 0.0  # a dropout before a shuffle would fall on other channels
    converted = convert(original).net
    reference = answers(original, images(16), training=True)
    assert deviation(answers(converted, images(16), training=True), reference) <= 10 * SAME
    assert deviation(answers(converted, images()), answers(original, images())) <= 10 * SAME  # with new statistics


def test_twenty_random_configurations_answer_alike_in_torch_and_onnx(original):
    net = convert(original).net
    space, rng = SearchSpace.of(net), random.Random(0)
    described = describe(net, SHAPE)
    assert len(described.shuffles) == len(shuffles(net))
    configs = [space.full(), space.smallest(), *(space.sample(rng) for _ in range(20))]
    for config in configs:
        statistics, reference = torch_answers(net, config, images(32, seed=1), images())
        assert relative_deviation(described, config, statistics, images(), reference) <= TOLERANCE, config


def test_configurations_differ_and_cost_less(original):
    net = convert(original).net
    space, costs = SearchSpace.of(net), measure_costs(net, SHAPE)
    set_active(net, space.smallest())
    assert deviation(answers(net, images()), answers(original, images())) > 1000 * SAME
    assert costs.macs(space.smallest()) < 0.9 * costs.macs(space.full())


def test_a_shuffle_without_reordered_rows_changes_the_answer(original):
    conversion = convert(original)
    conversion.net.load_state_dict(original.state_dict(), strict=False)
    moved = deviation(answers(conversion.net, images()), answers(original, images()))
    assert (moved > 1000 * SAME) == bool(conversion.shuffles)


def test_every_name_of_the_original_stays_and_every_pattern_starts_as_a_copy(original):
    conversion = convert(original)
    plain, state = original.state_dict(), conversion.net.state_dict()
    copies = tuple(f"{name}.patterns." for name in conversion.norms)
    assert [name for name in state if not name.startswith(copies)] == list(plain)
    assert [tuple(state[name].shape) for name in plain] == [tuple(value.shape) for value in plain.values()]
    for switch in switchable_norms(conversion.net).values():
        for _, norm in switch.norms():
            for name, value in norm.state_dict().items():
                assert torch.equal(value, switch.state_dict()[name])
    names = {module: name for name, module in conversion.net.named_modules()}
    assert {names[switch]: names[switch.fed_by] for switch in switchable_norms(conversion.net).values()} == dict(
        conversion.norms
    )
    assert set(weight_enabled(conversion.net)) == set(conversion.layers)


def test_the_original_and_torchs_randomness_are_left_as_they_were(original):
    before = {name: value.clone() for name, value in original.state_dict().items()}
    kinds = [type(module) for module in original.modules()]
    modes = [module.training for module in original.modules()]
    state = torch.get_rng_state()
    convert(original)
    assert torch.equal(torch.get_rng_state(), state)
    assert kinds == [type(module) for module in original.modules()]
    assert modes == [module.training for module in original.modules()]
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())


def test_it_is_rebuilt_from_its_state_dict_and_copied_whole(original):
    net = convert(original).net
    with torch.no_grad():
        for value in net.parameters():
            value.mul_(1.1)
    rebuilt = convert(fresh(original)).net
    rebuilt.load_state_dict(net.state_dict())
    space = SearchSpace.of(net)
    twin = copy.deepcopy(net)
    for config in space.uniforms():
        for one in (net, rebuilt, twin):
            set_active(one, config)
        reference = answers(net, images())
        assert torch.equal(answers(rebuilt, images()), reference)
        assert torch.equal(answers(twin, images()), reference)
    set_active(twin, space.full())
    assert weight_enabled(net)[next(iter(space.allowed))].active_groups > 1  # the copy switches its own layers


def fresh(original):
    """The same network with other numbers."""
    other = copy.deepcopy(original)
    with torch.no_grad():
        for value in other.parameters():
            value.normal_()
    return other


def test_every_parameter_learns_in_some_uniform_configuration(original):
    net = convert(original).net.train()
    for config in SearchSpace.of(net).uniforms():
        set_active(net, config)
        net(images(8)).square().mean().backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in net.parameters())


def test_type_frozen_parameters_and_training_flags_are_carried_over():
    original = make("bottlenecks").double().train()
    for value in original.body[0].parameters():
        value.requires_grad_(False)
    original.body[1].eval()
    original.body[1].bn1.momentum = None
    net = convert(original).net
    assert {value.dtype for value in net.parameters()} == {torch.float64}
    assert not any(value.requires_grad for value in net.body[0].parameters())
    assert all(value.requires_grad for value in net.body[1].parameters())
    assert not net.body[1].bn1.training
    assert not net.body[1].conv2.training
    assert net.body[0].conv1.training
    assert isinstance(net.body[1].bn1, SwitchableBatchNorm)
    assert [norm.momentum for _, norm in net.body[1].bn1.norms()] == [None] * 5


def test_a_lower_highest_pattern_is_kept_to():
    net = convert(make("bottlenecks"), max_groups=4).net
    assert {layer.groups_allowed for layer in weight_enabled(net).values()} == {(1, 2, 4)}
    assert {shuffle.groups for shuffle in shuffles(net).values()} == {16}
