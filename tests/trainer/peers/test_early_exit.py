import pytest
import torch
from torch import nn

from tests.trainer.peers.narrow import enliven
from wenet_trainer.cost import measure_costs
from wenet_trainer.errors import NetworkError
from wenet_trainer.evaluate import accuracy, logits, recalibrated
from wenet_trainer.models import build
from wenet_trainer.models.digits_resnet import DigitsResNet
from wenet_trainer.models.small_resnet import SmallResNet
from wenet_trainer.peers.early_exit import EarlyExit
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import Flexible, active_norms, set_active, weight_enabled

NETWORKS = {"small": (lambda: SmallResNet(depth=4), (3, 32, 32)), "digits": (lambda: DigitsResNet(16, 64), (1, 32, 32))}


@pytest.fixture(params=NETWORKS)
def made(request):
    """A network and an image's shape."""
    torch.manual_seed(0)
    make, shape = NETWORKS[request.param]
    return enliven(make()), shape


def answers(net, x):
    with torch.inference_mode():
        return net(x)


def stem(net, x):
    x = net.relu(net.stem_bn(net.stem(x)))
    return net.pool(x) if hasattr(net, "pool") else x


def prefix(net, exits, count):
    """A plain network of the stem, the first blocks and one head."""
    pool = [net.pool] if hasattr(net, "pool") else []
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), exits[count - 1]]
    return nn.Sequential(net.stem, net.stem_bn, net.relu, *pool, *list(net.blocks)[:count], *end)


@pytest.mark.parametrize("hidden", [0, 20])
def test_an_exit_answers_as_the_first_blocks_and_its_own_head(made, hidden):
    net, shape = made
    early, x = EarlyExit(net, shape, hidden).eval(), torch.randn(2, *shape)
    blocks = len(net.blocks)
    assert early.levels == {"exit": tuple(range(1, blocks + 1))}
    for level in early.levels["exit"]:
        early.activate({"exit": level})
        with torch.inference_mode():
            found, features = early(x), stem(net, x)
            for block in net.blocks[: blocks + 1 - level]:
                features = block(features)
            own = early.net.head[blocks - level]
            torch.testing.assert_close(found, own(features.mean((2, 3))), rtol=0, atol=0)
            if level > 1:  # the control: a block more in front of the same head is something else
                features = net.blocks[blocks + 1 - level](features).mean((2, 3))
                linear = own if hidden == 0 else own[0]
                assert linear.in_features != features.shape[1] or not torch.allclose(own(features), found, atol=1e-3)


def test_the_last_exit_is_the_original_network(made):
    net, shape = made
    early, x = EarlyExit(net, shape).eval(), torch.randn(2, *shape)
    assert torch.equal(answers(early, x), answers(net, x))
    early.activate({"exit": 2})
    assert not torch.allclose(answers(early, x), answers(net, x), atol=1e-3)
    early.activate({"exit": 1})
    assert torch.equal(answers(early, x), answers(net, x))


@pytest.mark.parametrize("hidden", [0, 20])
def test_costs_of_an_exit_equal_those_of_the_plain_prefix(made, hidden):
    net, shape = made
    early = EarlyExit(net, shape, hidden)
    macs = []
    for level in early.levels["exit"]:
        count = len(net.blocks) + 1 - level
        costs = measure_costs(prefix(net, early.net.head, count), shape)
        full = dict.fromkeys(costs.layers, 1)
        macs.append(early.macs({"exit": level}, shape))
        assert macs[-1] == costs.macs(full)
        assert early.params({"exit": level}) == costs.params(full)
    assert macs == sorted(set(macs), reverse=True)
    assert early.params({"exit": 1}) == measure_costs(net, shape).params(SearchSpace.of(net).full())


def test_measuring_leaves_the_network_as_it_was(made):
    net, shape = made
    early = EarlyExit(net, shape).train()
    early.activate({"exit": 3})
    before = {name: value.clone() for name, value in early.state_dict().items()}
    norms = set(early.norms_in_use())
    early.macs({"exit": 1}, shape)
    early.params({"exit": 2})
    assert early.training
    assert set(early.norms_in_use()) == norms
    assert all(torch.equal(value, before[name]) for name, value in early.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in early.modules())


def test_nothing_behind_an_exit_is_computed_or_trained():
    early = EarlyExit(SmallResNet(), (3, 32, 32)).train()
    calls = []
    for number, block in enumerate(early.net.blocks):
        block.register_forward_hook(lambda *_, number=number: calls.append(number))
    early.activate({"exit": 2})
    early(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert calls == [0, 1]
    trained = {
        name.split(".")[1] + "." + name.split(".")[2] for name, p in early.named_parameters() if p.grad is not None
    }
    assert trained == {"stem.weight", "stem_bn.weight", "stem_bn.bias", "blocks.0", "blocks.1", "head.1"}
    assert int(early.net.blocks[2].bn1.num_batches_tracked) == 0
    assert int(early.net.blocks[1].bn1.num_batches_tracked) == 1


def test_the_harness_switches_recalibrates_and_rates_it_like_any_network():
    torch.manual_seed(0)
    early, x = enliven(EarlyExit(SmallResNet(), (3, 32, 32))), torch.randn(64, 3, 32, 32)
    assert isinstance(early, Flexible)
    space = SearchSpace.of(early)
    assert [dict(config) for config in space.uniforms()] == [{"exit": 1}, {"exit": 2}, {"exit": 3}]
    with recalibrated(early, space.smallest(), x) as statistics:
        names = {name.removesuffix(".running_mean").removesuffix(".running_var") for name in statistics}
        assert names == set(early.norms_in_use())
        assert names == {"net.stem_bn"} | {f"net.blocks.0.{name}" for name in ("bn1", "bn2", "bn3", "downsample.1")}
        assert set(statistics) <= set(early.state_dict())
        right = logits(early, x).argmax(1).numpy()
        assert accuracy(early, space.smallest(), x, right).value == 1.0
    set_active(early, space.full())
    assert set(active_norms(early)) == set(early.norms_in_use()) > names


def test_the_network_it_was_made_of_stays_as_it_was_and_its_layers_run_dense(made):
    net, shape = made
    x = torch.randn(2, *shape)
    full = answers(net, x)
    set_active(net, SearchSpace.of(net).smallest())
    smallest = answers(net, x)
    early = EarlyExit(net, shape).eval()
    assert {layer.active_groups for layer in weight_enabled(early).values()} == {1}
    assert torch.equal(answers(early, x), full)
    assert torch.equal(answers(net, x), smallest)


def test_other_names_of_blocks_and_head_can_be_given():
    early = EarlyExit(build("mobilenet_v2", {"classes": 10}), (3, 32, 32), blocks="features", head="classifier").eval()
    assert len(early.levels["exit"]) == 19
    early.activate({"exit": 10})
    assert early(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


class Convolved(nn.Module):
    """A network with a convolution between blocks and head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1))
        self.last = nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.last(self.blocks(x)).mean((2, 3)))


def test_networks_and_configurations_that_have_no_such_exits_are_refused():
    with pytest.raises(NetworkError, match="TinyNet needs a Sequential 'blocks' and a module 'head'"):
        EarlyExit(build("tiny"), (1, 32, 32))
    with pytest.raises(NetworkError, match=r"gets \[\(1, 16\)\] of blocks that give \(1, 8, 4, 4\)"):
        EarlyExit(Convolved(), (3, 4, 4))
    with pytest.raises(NetworkError, match="-1 hidden"):
        EarlyExit(SmallResNet(), (3, 32, 32), hidden=-1)
    early = EarlyExit(SmallResNet(), (3, 32, 32))
    for config in ({"exit": 4}, {"exit": 0}, {"width": 1}, {}):
        with pytest.raises(NetworkError, match="with a level from 1 to 3"):
            early.activate(config)
