"""A shuffle vanishes into its neighbours' weights where that is exact."""

from typing import Callable, Tuple

import numpy as np
import pytest

from tests.runtime.nets import Net, answers, kinds, same
from wenet_runtime.lowering.fold_shuffle import fold_shuffle
from wenet_runtime.lowering.graph import Graph

Case = Callable[[Net], str]


def fold(graph: Graph, name: str = "shuffle") -> bool:
    """Fold, checking that the answer stays; if nothing folds, that the graph stays byte for byte."""
    before, data = answers(graph), graph.to_bytes()
    folded = fold_shuffle(graph, graph.node(name))
    assert same(answers(graph), before)
    if not folded:
        assert graph.to_bytes() == data
    return folded


def dense_producer(net: Net) -> str:
    x = net.shuffle(net.conv("input", "a", 16, 16), "shuffle", 16)
    return net.conv(x, "b", 16, 16, groups=8)


def dense_consumer(net: Net) -> str:
    x = net.shuffle(net.conv("input", "a", 16, 16, groups=8), "shuffle", 16)
    return net.conv(x, "b", 16, 16)


def through_depthwise_and_relu_backwards(net: Net) -> str:
    x = net.op("Relu", [net.conv("input", "a", 16, 16)], "relu")
    x = net.op("MaxPool", [net.depthwise(x, "deep", 16)], "pool", kernel_shape=[2, 2])
    return net.conv(net.shuffle(x, "shuffle", 16), "b", 16, 16, groups=8)


def through_depthwise_and_relu_forwards(net: Net) -> str:
    x = net.shuffle(net.conv("input", "a", 16, 16, groups=8), "shuffle", 16)
    x = net.op("Clip", [net.depthwise(net.op("Relu", [x], "relu"), "deep", 16)], "clip")
    return net.conv(x, "b", 16, 16)


def through_a_squeeze_excite_gate(net: Net) -> str:
    x = net.squeeze_excite(net.conv("input", "a", 16, 16), "gate", 16)
    return net.conv(net.shuffle(x, "shuffle", 16), "b", 16, 16, groups=8)


def through_a_squeeze_excite_gate_forwards(net: Net) -> str:
    x = net.shuffle(net.conv("input", "a", 16, 16, groups=8), "shuffle", 16)
    return net.conv(net.squeeze_excite(x, "gate", 16), "b", 16, 16)


def across_a_sum_of_dense_layers(net: Net) -> str:
    left = net.conv("input", "a", 16, 16)
    x = net.op("Add", [left, net.conv(left, "c", 16, 16)], "add")
    return net.conv(net.shuffle(x, "shuffle", 16), "b", 16, 16, groups=8)


def a_scalar_factor(net: Net) -> str:
    x = net.op("Mul", [net.conv("input", "a", 16, 16), net.number("half", np.float32([0.5]))], "mul")
    return net.conv(net.shuffle(x, "shuffle", 16), "b", 16, 16, groups=8)


def groups_that_the_order_does_not_leave(net: Net) -> str:
    # An order inside each half of the channels suits a convolution of two groups.
    inside = np.concatenate([np.arange(8)[::-1], 8 + np.arange(8)[::-1]]).astype(np.int64)
    x = net.conv("input", "a", 16, 16, groups=2)
    x = net.op("Gather", [x, net.number("order", inside)], "shuffle", axis=1)
    return net.conv(x, "b", 16, 16, groups=8)


def groups_that_the_order_does_not_leave_after_it(net: Net) -> str:
    inside = np.concatenate([np.arange(8)[::-1], 8 + np.arange(8)[::-1]]).astype(np.int64)
    x = net.conv("input", "a", 16, 16, groups=8)
    x = net.op("Gather", [x, net.number("order", inside)], "shuffle", axis=1)
    return net.conv(x, "b", 16, 16, groups=2)


def two_convolutions_without_bias(net: Net) -> str:
    x = net.shuffle(net.conv("input", "a", 16, 16, bias=False), "shuffle", 16)
    return net.conv(x, "b", 16, 32, groups=4, bias=False)


def rows(net: Net) -> str:
    """The input's channels, (batch, 16)."""
    return net.op("Flatten", [net.op("GlobalAveragePool", ["input"], "rows.pool")], "rows", axis=1)


def image_conv(net: Net, x: str, groups: int) -> str:
    """A grouped linear layer as it is emitted."""
    image = net.op("Reshape", [x, net.number("image.shape", np.array([0, 16, 1, 1]))], "image")
    return net.op("Flatten", [net.conv(image, "grouped", 16, 16, groups=groups)], "grouped.row", axis=1)


def into_a_linear_layer(net: Net) -> str:
    x = net.shuffle(net.conv("input", "a", 16, 16, groups=4), "shuffle", 16)
    x = net.op("Flatten", [net.op("GlobalAveragePool", [x], "pool")], "flatten", axis=1)
    return net.linear(x, "gemm", 16, 3)


def between_linear_layers_of_either_form(net: Net) -> str:
    x = net.op("Relu", [net.linear(rows(net), "a", 16, 16, turned=True)], "relu")
    x = net.shuffle(x, "shuffle", 16)
    return net.linear(image_conv(net, x, 4), "b", 16, 8)


def behind_a_grouped_linear_layer(net: Net) -> str:
    x = net.op("Relu", [image_conv(net, rows(net), 4)], "relu")
    return net.linear(net.shuffle(x, "shuffle", 16), "b", 16, 8, bias=False, turned=True)


@pytest.mark.parametrize(
    "case",
    [
        dense_producer,
        dense_consumer,
        through_depthwise_and_relu_backwards,
        through_depthwise_and_relu_forwards,
        through_a_squeeze_excite_gate,
        through_a_squeeze_excite_gate_forwards,
        across_a_sum_of_dense_layers,
        a_scalar_factor,
        groups_that_the_order_does_not_leave,
        groups_that_the_order_does_not_leave_after_it,
        two_convolutions_without_bias,
        into_a_linear_layer,
        between_linear_layers_of_either_form,
        behind_a_grouped_linear_layer,
    ],
)
def test_it_folds(case: Case) -> None:
    net = Net()
    graph = net.graph([case(net)])
    assert fold(graph)
    assert "Gather" not in kinds(graph)


def test_another_reader_of_the_same_weights_keeps_them() -> None:
    net = Net()
    x = net.shuffle(net.conv("input", "a", 16, 16), "shuffle", 16)
    y = net.conv(x, "b", 16, 16, groups=4)
    z = net.op("Conv", ["input", "a.w"], "twin", kernel_shape=[1, 1])
    graph = net.graph([y, z])
    assert fold(graph)
    assert graph.node("twin").input[1] == "a.w"


def random_net(seed: int) -> Tuple[Net, str, int]:
    """A chain of random operators with three shuffles, 16 channels all the way."""
    net = Net(seed=seed)
    choose = np.random.default_rng(seed)
    x = net.conv("input", "first", 16, 16, groups=int(choose.choice([1, 2, 4])))
    for at in range(12):
        kind = choose.choice(["conv", "conv", "relu", "deep", "gate", "add", "pool"])
        if at % 4 == 3:
            x = net.shuffle(x, f"shuffle{at // 4}", 16, int(choose.choice([2, 4, 8])))
        elif kind == "conv":
            x = net.conv(x, f"n{at}", 16, 16, groups=int(choose.choice([1, 2, 4, 8])))
        elif kind == "relu":
            x = net.op("Relu", [x], f"n{at}")
        elif kind == "deep":
            x = net.depthwise(x, f"n{at}", 16)
        elif kind == "gate":
            x = net.squeeze_excite(x, f"n{at}", 16)
        elif kind == "add":
            x = net.op("Add", [x, net.conv(x, f"n{at}.side", 16, 16, groups=int(choose.choice([1, 4])))], f"n{at}")
        else:
            x = net.op("AveragePool", [x], f"n{at}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return net, net.conv(x, "last", 16, 8, groups=int(choose.choice([1, 2, 4]))), 3


def test_whatever_the_network_is_the_answer_stays() -> None:
    outcomes = []
    for seed in range(25):
        net, output, shuffles = random_net(seed)
        graph = net.graph([output])
        outcomes += [fold(graph, f"shuffle{number}") for number in range(shuffles)]
    assert 0.1 < np.mean(outcomes) < 0.9  # both kinds were met


def test_the_comparison_used_here_sees_a_dropped_permutation() -> None:
    net = Net()
    graph = net.graph([dense_producer(net)])
    before = answers(graph)
    graph.bypass(graph.node("shuffle"))
    assert not same(answers(graph), before)
