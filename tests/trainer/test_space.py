import random

import pytest
from torch import nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.models import build
from wenet_trainer.space import GroupConfig, SearchSpace


def test_a_configuration_is_a_value():
    one, two = GroupConfig({"a": 2, "b": 4}), GroupConfig({"b": 4, "a": 2})
    assert one == two
    assert hash(one) == hash(two)
    assert one != GroupConfig({"a": 2, "b": 8})
    assert {**one, "a": 1} == {"a": 1, "b": 4}


def test_uniform_configurations_are_clipped_per_layer():
    space = SearchSpace({"a": (1, 2, 4, 8, 16), "b": (1, 2)}, (("a",), ("b",)))
    assert space.uniform(8) == GroupConfig({"a": 8, "b": 2})
    assert space.full() == GroupConfig({"a": 1, "b": 1})
    assert space.smallest() == GroupConfig({"a": 16, "b": 2})
    assert len(space.uniforms()) == 5
    with pytest.raises(NetworkError, match="at least 1, got 0"):
        space.uniform(0)


def test_sampling_draws_every_level_of_every_knob_and_follows_the_seed():
    space = SearchSpace.of(build("tiny"))
    drawn = [space.sample(random.Random(7)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    rng = random.Random(0)
    many = [space.sample(rng) for _ in range(200)]
    for name, levels in space.allowed.items():
        assert {config[name] for config in many} == set(levels)


def test_neighbours_raise_one_knob_by_one_level():
    space = SearchSpace({"a": (1, 2, 4), "b": (1, 2)}, (("a",), ("b",)))
    assert space.neighbours(GroupConfig({"a": 2, "b": 1})) == (
        GroupConfig({"a": 4, "b": 1}),
        GroupConfig({"a": 2, "b": 2}),
    )
    assert space.neighbours(space.smallest()) == ()


def test_configurations_and_vectors_of_levels_are_the_same_thing():
    space = SearchSpace.of(build("digits_resnet"), "block")
    assert set(space.vector(space.full())) == {0}
    assert space.config([0] * len(space.knobs)) == space.full()
    tops = tuple(len(space.levels(knob)) - 1 for knob in space.knobs)
    assert space.vector(space.smallest()) == tops
    rng = random.Random(0)
    for config in [*space.uniforms(), *(space.sample(rng) for _ in range(50))]:
        assert space.config(space.vector(config)) == config
    assert len({space.config([level, *tops[1:]]) for level in range(tops[0] + 1)}) == tops[0] + 1


def test_a_configuration_whose_knob_is_not_at_one_level_has_no_vector():
    space = SearchSpace({"a": (1, 2, 4), "b": (1, 2)}, (("a", "b"),))
    assert space.vector({"a": 4, "b": 2}) == (2,)
    with pytest.raises(NetworkError, match="a: 4, b: 1"):
        space.vector({"a": 4, "b": 1})
    with pytest.raises(NetworkError, match="a: 3, b: 2"):
        space.vector({"a": 3, "b": 2})
    with pytest.raises(ValueError, match="zip"):
        space.config([0, 0])


def test_a_block_knob_moves_a_residual_block_with_its_shortcut():
    space = SearchSpace.of(build("digits_resnet"), "block")
    assert space.knobs[0] == tuple(f"blocks.0.{name}" for name in ("conv1", "conv2", "conv3", "downsample.0"))
    raised = space.neighbours(space.full())[0]
    assert {name for name, groups in raised.items() if groups == 2} == set(space.knobs[0])


def test_a_network_without_weight_enabled_layers_is_refused():
    with pytest.raises(NetworkError, match="no weight-enabled layers"):
        SearchSpace.of(nn.Conv2d(1, 1, 1))
    with pytest.raises(NetworkError, match="unknown granularity 'stage'"):
        SearchSpace.of(build("tiny"), "stage")
