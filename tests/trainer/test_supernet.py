import pytest
import torch

from wenet_trainer.errors import NetworkError
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import active_norms, fixed_norms, layer_blocks, set_active, weight_enabled


def test_switching_changes_the_answers_and_switching_back_restores_them(supernet):
    space, x = SearchSpace.of(supernet), torch.randn(2, 1, 32, 32)
    full = supernet(x)
    set_active(supernet, space.smallest())
    assert not torch.allclose(supernet(x), full, atol=1e-3)
    set_active(supernet, space.full())
    assert torch.equal(supernet(x), full)


def test_a_configuration_of_another_network_is_refused(tiny):
    with pytest.raises(NetworkError, match=r"lacks \['block.expand'.*names unknown \['other'\]"):
        set_active(tiny, {"other": 1})


def test_active_norms_are_the_active_patterns_and_the_fixed_norms(tiny):
    set_active(tiny, {**SearchSpace.of(tiny).full(), "block.expand": 4})
    assert set(active_norms(tiny)) == {
        "stem_bn",
        "conv_bn",
        "block.expand_bn.patterns.4",
        "block.depthwise_bn.patterns.4",
        "block.project_bn",
    }
    assert set(fixed_norms(tiny)) == {"stem_bn"}


def test_layers_outside_any_block_stand_alone(tiny):
    assert layer_blocks(tiny) == (("conv",), ("block.expand", "block.project"), ("hidden",))
    assert list(weight_enabled(tiny)) == ["conv", "block.expand", "block.project", "hidden"]
