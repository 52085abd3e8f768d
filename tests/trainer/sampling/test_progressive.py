import random

import pytest
import torch

from tests.trainer.conftest import lively
from wenet_trainer.cost import measure_costs
from wenet_trainer.errors import TrainingError
from wenet_trainer.peers.networks import slimmable_small_resnet
from wenet_trainer.sampling import open_sampler
from wenet_trainer.sampling.base import Plan, Trial
from wenet_trainer.sampling.noise import learn_noise
from wenet_trainer.sampling.progressive import ProgressiveSampler, raised


@pytest.fixture
def trial() -> Trial:
    generator = torch.Generator().manual_seed(0)
    net = lively("tiny")
    inputs = torch.randn(48, 1, 32, 32, generator=generator)
    with torch.inference_mode():
        labels = net(inputs).argmax(1)  # it is right about all of them, until it is disturbed
    return Trial(net, inputs, labels.clone())


def sampler(trial: Trial) -> ProgressiveSampler:
    made = open_sampler("progressive", Plan(4, 1, 12, 0), trial.net, (1, 32, 32))
    assert isinstance(made, ProgressiveSampler)
    return made


def test_a_layer_whose_output_does_not_matter_bears_the_most_noise(trial):
    with torch.no_grad():
        trial.net.block.project_bn.weight.zero_()  # what the projection gives is multiplied by nothing
    found = learn_noise(trial.net, trial.inputs, trial.labels, seed=0)
    assert max(found, key=lambda name: found[name]) in ("block.project", "block.expand")
    assert found["block.project"] > 2 * min(found.values())


def test_learning_the_noise_leaves_the_network_as_it_was(trial):
    before = {name: value.clone() for name, value in trial.net.state_dict().items()}
    trial.net.train()
    trial.net.stem.weight.requires_grad_(requires_grad=False)
    learn_noise(trial.net, trial.inputs, trial.labels, seed=0)
    assert all(torch.equal(before[name], value) for name, value in trial.net.state_dict().items())
    assert trial.net.training
    assert not trial.net.stem.weight.requires_grad
    assert trial.net.head.weight.requires_grad
    assert all(parameter.grad is None for parameter in trial.net.parameters())
    assert torch.equal(trial.net.eval()(trial.inputs).argmax(1), trial.labels)  # no noise is left behind


def test_the_layers_that_bear_most_noise_go_one_level_further():
    allowed = {"a": (1, 2, 4), "b": (1, 2, 4), "c": (1, 2), "d": (1,)}
    noise = {"a": 0.9, "b": 0.1, "c": 0.5, "d": 2.0}
    first = raised({"a": 1, "b": 1, "c": 1, "d": 1}, noise, allowed, threshold=0.5)
    assert first == {"a": 2, "b": 1, "c": 2, "d": 1}
    assert raised(first, noise, allowed, threshold=0.5) == {"a": 4, "b": 1, "c": 2, "d": 1}
    assert raised(first, noise, allowed, threshold=1.0) == {"a": 4, "b": 2, "c": 2, "d": 1}


def test_the_pool_grows_towards_cheaper_networks_stage_by_stage(trial):
    one = sampler(trial)
    costs = measure_costs(trial.net, (1, 32, 32))
    cheapest = []
    for epoch in (0, 2, 4, 6):
        assert one.wants_trial(epoch)
        one.look(epoch, trial)
        drawn = [one.draw(random.Random(seed)) for seed in range(30)]
        cheapest.append(min(costs.macs(config) for config in drawn))
        ceilings = one.state()["ceilings"]
        assert all(config[name] <= ceilings[name] for config in drawn for name in config)
    assert cheapest[0] > cheapest[-1]
    assert not one.wants_trial(1)


def test_the_smallest_network_is_always_trained(trial):
    one = sampler(trial)
    one.look(0, trial)
    assert one.sandwich(random.Random(0))[:2] == [one.layers.full(), one.layers.smallest()]


def test_what_was_selected_survives_a_kill(trial):
    one, other = sampler(trial), sampler(trial)
    one.look(0, trial)
    assert one.state() != other.state()
    other.restore(one.state())
    assert other.sandwich(random.Random(1)) == one.sandwich(random.Random(1))
    one.look(2, trial)
    other.look(2, trial)
    assert other.state() == one.state()


def test_it_needs_weight_enabled_layers():
    with pytest.raises(TrainingError, match="ranks weight-enabled layers, and this network has none"):
        open_sampler("progressive", Plan(4, 1, 1, 0), slimmable_small_resnet(), (3, 32, 32))
