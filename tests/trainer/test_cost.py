import torch
from torch import nn

from wenet_trainer.cost import measure_costs
from wenet_trainer.layers import WeightEnabledConv2d, WeightEnabledLinear
from wenet_trainer.models import build
from wenet_trainer.space import SearchSpace


def test_costs_of_the_tiny_network_equal_a_count_by_hand():
    net = build("tiny")
    costs, space = measure_costs(net, (1, 32, 32)), SearchSpace.of(net)
    # stem 5×5 at 8×8, depthwise 3×3 at 4×4, head: never switched; conv 3×3, 1×1, 1×1 at 4×4 and hidden are.
    fixed = 8 * 8 * 32 * 25 + 4 * 4 * 64 * 9 + 32 * 10
    switched = 4 * 4 * 32 * 32 * 9 + 4 * 4 * 32 * 64 + 4 * 4 * 64 * 32 + 32 * 32
    assert costs.macs(space.full()) == fixed + switched
    assert costs.macs(space.smallest()) == fixed + switched // 16
    norms = 2 * (32 + 32 + 64 + 64 + 32)
    always = 32 * 25 + 64 * 9 + 32 * 10 + 10 + norms + 32 + 32  # the last two: biases of conv and hidden
    weights = 32 * 32 * 9 + 32 * 64 + 64 * 32 + 32 * 32
    assert costs.params(space.full()) == always + weights
    assert costs.params(space.uniform(4)) == always + weights // 4


def test_one_layers_macs_shrink_with_its_own_groups_only():
    net = build("tiny")
    costs, full = measure_costs(net, (1, 32, 32)), SearchSpace.of(net).full()
    saved = costs.macs(full) - costs.macs({**full, "conv": 4})
    assert saved == 4 * 4 * 32 * 32 * 9 * 3 // 4


def test_measuring_leaves_the_network_as_it_was():
    net = build("tiny").train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure_costs(net, (1, 32, 32))
    assert net.training
    assert all((value == before[name]).all() for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules() if isinstance(module, nn.Conv2d))


def test_the_smallest_demo_mode_costs_at_most_a_third():
    net = build("digits_resnet")
    costs, space = measure_costs(net, (1, 32, 32)), SearchSpace.of(net)
    assert costs.macs(space.smallest()) <= 0.35 * costs.macs(space.full())


class Repeats(nn.Module):
    """Calls a switched and a plain layer twice, the second time at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = WeightEnabledConv2d(16, 16, 3, padding=1, bias=True)
        self.plain = nn.Conv2d(16, 16, 1, bias=False)

    def forward(self, x):
        x = self.plain(self.conv(x))
        return self.plain(self.conv(x[:, :, ::2, ::2]))


def test_a_layer_that_is_called_twice_costs_both_calls_and_its_parameters_once():
    costs = measure_costs(Repeats(), (16, 8, 8))
    positions = 8 * 8 + 4 * 4
    assert costs.layers["conv"].positions == positions
    assert costs.macs({"conv": 1}) == positions * (16 * 16 * 9 + 16 * 16)
    assert costs.macs({"conv": 4}) == positions * (16 * 16 * 9 // 4 + 16 * 16)
    assert costs.params({"conv": 1}) == 16 * 16 * 9 + 16 + 16 * 16


class Tokens(nn.Module):
    """Dense layers over (N, T, in), and over (N, H, W, in)."""

    def __init__(self, folded) -> None:
        super().__init__()
        self.hidden = WeightEnabledLinear(16, 32)
        self.head = nn.Linear(32, 10)
        self.folded = folded

    def forward(self, x):
        tokens = x.movedim(1, -1)
        return self.head(self.hidden(tokens.flatten(1, 2) if self.folded else tokens))


def test_a_dense_layer_costs_its_weights_once_per_token():
    for folded in (True, False):
        net = Tokens(folded)
        assert net(torch.zeros(1, 16, 5, 7)).dim() == (3 if folded else 4)
        costs = measure_costs(net, (16, 5, 7))
        assert costs.layers["hidden"].positions == 35
        assert costs.macs({"hidden": 2}) == 35 * (16 * 32 // 2 + 32 * 10)
