"""Every sampling keeps the sandwich; each one's own draws."""

import json
import random

import pytest
import torch

from tests.trainer.conftest import lively
from wenet_trainer.cost import Costs, measure_costs
from wenet_trainer.errors import TrainingError
from wenet_trainer.layers import WeightEnabledConv2d
from wenet_trainer.models import build
from wenet_trainer.peers.networks import early_exit_small_resnet, slimmable_small_resnet
from wenet_trainer.sampling import SAMPLINGS, open_sampler
from wenet_trainer.sampling.base import Plan, Sampler
from wenet_trainer.sampling.target import DrawAtCost
from wenet_trainer.space import GroupConfig, SearchSpace


def sampler(name: str, samples: int = 6, model: str = "digits_resnet", groups: int = 1) -> Sampler:
    return open_sampler(name, Plan(samples, groups, epochs=8, seed=0), lively(model), (1, 32, 32))


@pytest.mark.parametrize("name", sorted(set(SAMPLINGS) - {"fixed"}))
def test_a_sandwich_is_the_full_network_the_smallest_and_others_that_follow_the_seed(name):
    one = sampler(name, samples=20)
    sandwich = one.sandwich(random.Random(3))
    assert len(sandwich) == 20
    assert sandwich[0] == one.layers.full()
    assert sandwich[1] == one.layers.smallest()
    assert sandwich == one.sandwich(random.Random(3))
    if name != "progressive":  # its pool is empty before the first look
        assert len(set(sandwich[2:])) > 5
        assert sandwich != one.sandwich(random.Random(4))


@pytest.mark.parametrize("name", sorted(SAMPLINGS))
def test_a_state_survives_json(name):
    one = sampler(name)
    state = json.loads(json.dumps(one.state()))
    other = sampler(name)
    other.restore(state)
    assert other.state() == one.state()
    assert other.sandwich(random.Random(1)) == one.sandwich(random.Random(1))


def test_fixed_sampling_trains_one_pattern_and_nothing_beside_it():
    one = sampler("fixed", groups=4)
    assert one.sandwich(random.Random(0)) == [one.layers.uniform(4)]


def test_uniform_sampling_draws_every_layer_on_its_own():
    one = sampler("uniform", samples=12)
    drawn = one.sandwich(random.Random(0))[2:]
    assert any(len({config[name] for name in one.blocks.knobs[0]}) > 1 for config in drawn)


def test_target_sampling_trains_uniform_modes_and_others_now_and_then(monkeypatch):
    one = sampler("target", samples=4)
    rng = random.Random(0)
    uniform = set(one.layers.uniforms()[1:-1])
    share = sum(config in uniform for _ in range(100) for config in one.sandwich(rng)[2:]) / 200
    assert 0.7 < share < 0.95
    monkeypatch.setattr("wenet_trainer.sampling.target.NOW_AND_THEN", 0.0)
    assert all(len({*one.sandwich(rng)[2:]} & uniform) == 2 for _ in range(20))  # never one twice


def test_target_sampling_with_many_samples_adds_networks_at_drawn_costs():
    one = sampler("target", samples=20)
    uniform = set(one.layers.uniforms())
    drawn = one.sandwich(random.Random(0))
    assert sum(config not in uniform for config in drawn) > 10


def shares(configs: list[GroupConfig], costs: Costs, full: GroupConfig) -> list[float]:
    return sorted(costs.macs(config) / costs.macs(full) for config in configs)


def test_target_sampling_reaches_costs_that_uniform_draws_never_come_near():
    """On ResNet-50, as the facts behind the default say: 99.8 % of uniform draws fall in 0.27–0.57."""
    net = build("resnet50")
    costs = measure_costs(net, (3, 64, 64))
    rng = random.Random(0)
    drawn = {}
    for name in ("uniform", "target"):
        one = open_sampler(name, Plan(4, 1, 1, 0), net, (3, 64, 64))
        drawn[name] = shares([one.draw(rng) for _ in range(200)], costs, one.layers.full())
    assert drawn["uniform"][0] > 0.2
    assert drawn["uniform"][-1] < 0.65
    assert sum(share < 0.2 for share in drawn["target"]) > 30
    assert sum(share > 0.65 for share in drawn["target"]) > 20


def test_a_draw_at_a_cost_costs_that_on_average():
    net = build("digits_resnet")
    space, costs = SearchSpace.of(net), measure_costs(net, (1, 32, 32))
    draw = DrawAtCost(space, costs)
    full = costs.macs(space.full())
    rng = random.Random(0)
    for share in (0.25, 0.5, 0.75):
        found = [costs.macs(draw.draw(share * full, rng)) / full for _ in range(300)]
        assert sum(found) / len(found) == pytest.approx(share, abs=0.03)


def test_a_draw_at_a_cost_stays_under_its_ceilings():
    net = build("digits_resnet")
    space, costs = SearchSpace.of(net), measure_costs(net, (1, 32, 32))
    ceilings = {name: 1 if "conv2" in name else 4 for name in space.allowed}
    draw = DrawAtCost(space, costs, ceilings)
    rng = random.Random(0)
    drawn = [draw.draw_log_uniform(rng) for _ in range(50)]
    assert all(config[name] <= ceilings[name] for config in drawn for name in config)
    assert any(config[name] == 4 for config in drawn for name in config)
    assert draw.range[0] == costs.macs(_at_ceiling(space, ceilings))
    assert draw.range[1] == costs.macs(space.full())


def _at_ceiling(space: SearchSpace, ceilings: dict[str, int]) -> dict[str, int]:
    return {name: max(level for level in levels if level <= ceilings[name]) for name, levels in space.allowed.items()}


def test_a_network_flexible_in_another_way_draws_any_of_its_levels():
    net = slimmable_small_resnet()
    space = SearchSpace.of(net)
    one = open_sampler("target", Plan(4, 1, 1, 0), net, (3, 32, 32))
    sandwich = one.sandwich(random.Random(0))
    assert dict(sandwich[0]) == {"width": 1}
    assert dict(sandwich[1]) == {"width": space.allowed["width"][-1]}
    assert len({one.draw(random.Random(seed))["width"] for seed in range(40)}) > 5


def test_a_level_is_not_trained_twice_in_a_step():
    net = early_exit_small_resnet()
    one = open_sampler("target", Plan(4, 1, 1, 0), net, (3, 32, 32))
    assert [dict(config) for config in one.sandwich(random.Random(0))] == [{"exit": 1}, {"exit": 3}, {"exit": 2}]


def test_fixed_sampling_refuses_a_pattern_that_the_network_lacks():
    with pytest.raises(TrainingError, match=r"no pattern 3: --groups can be one of \[1, 2, 4, 8, 16\]"):
        sampler("fixed", groups=3)


def test_two_samples_need_nothing_between_full_and_smallest():
    net = torch.nn.Sequential(WeightEnabledConv2d(2, 2, 1))
    assert len(open_sampler("target", Plan(2, 1, 1, 0), net, (2, 4, 4)).sandwich(random.Random(0))) == 2


def test_an_unknown_sampling_is_refused():
    with pytest.raises(TrainingError, match=r"sampling 'x'.*fixed, progressive, target, uniform"):
        sampler("x")
