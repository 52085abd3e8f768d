from torch import nn

from wenet_trainer.cost import measure_costs
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
