import pytest
import torch

from wenet_trainer.forward import open_forward
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import set_active


def test_without_compiling_the_network_itself_runs(tiny):
    space = SearchSpace.of(tiny)
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(open_forward(tiny, space, compile_ends=False)(space.full(), x), tiny(x))


@pytest.mark.parametrize("groups", [1, 16])
def test_a_compiled_configuration_gives_the_same_answers_and_gradients(tiny, groups):
    """With the compiler's front and its own backward, without its code generation, which needs a C++ compiler."""
    space = SearchSpace.of(tiny)
    forward = open_forward(tiny, space, compile_ends=True, backend="aot_eager")
    x = torch.randn(4, 1, 32, 32)
    found = {}
    for name, run in (("eager", lambda config, x: tiny(x)), ("compiled", forward)):
        tiny.train().zero_grad()
        before = {key: value.clone() for key, value in tiny.state_dict().items()}
        set_active(tiny, space.uniform(groups))
        out = run(space.uniform(groups), x)
        out.square().sum().backward()
        found[name] = out.detach(), tiny.conv.weight.grad.clone(), tiny.stem_bn.running_mean.clone()
        tiny.load_state_dict(before)
    for eager, compiled in zip(*found.values(), strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-5)


def test_configurations_do_not_stand_in_for_each_other(tiny):
    space = SearchSpace.of(tiny)
    forward = open_forward(tiny.eval(), space, compile_ends=True, backend="eager")
    x = torch.randn(2, 1, 32, 32)
    for config in (space.full(), space.smallest(), space.full(), {**space.full(), "conv": 8}):
        set_active(tiny, config)
        assert torch.allclose(forward(config, x), tiny(x), atol=1e-6)
