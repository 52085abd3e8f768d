"""A shuffle stays where writing it into its neighbours' weights would not be exact."""

import numpy as np
import pytest
from onnx import helper

from tests.runtime.nets import SIDE, Net, kinds
from tests.runtime.test_lowering_fold_shuffle import Case, fold, image_conv, rows


def both_neighbours_grouped(net: Net) -> str:
    x = net.shuffle(net.conv("input", "a", 16, 16, groups=4), "shuffle", 16)
    return net.conv(x, "b", 16, 16, groups=4)


def straight_from_the_input(net: Net) -> str:
    return net.conv(net.shuffle("input", "shuffle", 16), "b", 16, 16, groups=4)


def straight_to_an_output(net: Net) -> str:
    return net.shuffle(net.conv("input", "a", 16, 16), "shuffle", 16)


def an_output_behind_an_activation(net: Net) -> str:
    x = net.shuffle(net.conv("input", "a", 16, 16, groups=4), "shuffle", 16)
    return net.op("Relu", [x], "relu")


def into_a_linear_layer_over_positions(net: Net) -> str:
    x = net.shuffle(net.conv("input", "a", 16, 16, groups=4), "shuffle", 16)
    return net.linear(net.op("Flatten", [x], "flatten", axis=1), "gemm", 16 * SIDE * SIDE, 3)


def through_positions_made_channels(net: Net) -> str:
    # Rows of 16 · 36 numbers are read as 36 rows of 16 channels: the order would reach across positions.
    x = net.shuffle(net.conv("input", "a", 16, 16, groups=4), "shuffle", 16)
    x = net.op("Flatten", [x], "flatten", axis=1)
    x = net.op("Reshape", [x, net.number("shape", np.array([-1, 16, 1, 1]))], "image")
    return net.conv(x, "b", 16, 16)


def a_linear_layer_that_scales(net: Net) -> str:
    x = net.op("GlobalAveragePool", [net.conv("input", "a", 16, 16, groups=4)], "pool")
    x = net.shuffle(net.op("Flatten", [x], "flatten", axis=1), "shuffle", 16)
    return net.linear(x, "gemm", 16, 3, alpha=0.5)


def a_linear_layer_with_one_number_for_all(net: Net) -> str:
    x = net.shuffle(net.linear(rows(net), "gemm", 16, 16), "shuffle", 16)
    net.numbers["gemm.b"] = net.numbers["gemm.b"][:1]
    return image_conv(net, x, 4)


def a_linear_layer_whose_weight_is_computed(net: Net) -> str:
    x = net.shuffle(net.linear(rows(net), "gemm", 16, 16), "shuffle", 16)
    net.nodes[-2].input[1] = "computed"
    net.nodes.insert(0, helper.make_node("Abs", ["gemm.w"], ["computed"], name="computed"))
    return image_conv(net, x, 4)


def a_sum_with_the_input(net: Net) -> str:
    x = net.op("Add", [net.conv("input", "a", 16, 16), "input"], "add")
    return net.conv(net.shuffle(x, "shuffle", 16), "b", 16, 16, groups=4)


def a_sum_with_a_number_per_channel(net: Net) -> str:
    offset = net.number("offset", net.random.normal(size=(1, 16, 1, 1)).astype(np.float32))
    x = net.op("Add", [net.conv("input", "a", 16, 16), offset], "add")
    return net.conv(net.shuffle(x, "shuffle", 16), "b", 16, 16, groups=4)


def a_gate_of_one_channel(net: Net) -> str:
    x = net.conv("input", "a", 16, 16)
    x = net.op("Mul", [x, net.conv("input", "spatial", 16, 1)], "mul")
    return net.conv(net.shuffle(x, "shuffle", 16), "b", 16, 16, groups=4)


def a_sum_with_its_own_result(net: Net) -> str:
    x = net.conv("input", "a", 16, 16)
    x = net.op("Add", [net.shuffle(x, "shuffle", 16), x], "add")
    return net.conv(x, "b", 16, 16)


def a_weight_that_is_computed(net: Net) -> str:
    x = net.shuffle(net.conv("input", "a", 16, 16, groups=4), "shuffle", 16)
    net.conv("input", "spare", 16, 16)
    net.nodes.pop()
    weight = net.op("Abs", ["spare.w"], "computed")
    return net.op("Conv", [x, weight], "b", kernel_shape=[1, 1])


def a_normalisation_over_channels(net: Net) -> str:
    x = net.op("Softmax", [net.conv("input", "a", 16, 16)], "softmax", axis=2)
    return net.conv(net.shuffle(x, "shuffle", 16), "b", 16, 16, groups=4)


@pytest.mark.parametrize(
    "case",
    [
        both_neighbours_grouped,
        straight_from_the_input,
        straight_to_an_output,
        an_output_behind_an_activation,
        into_a_linear_layer_over_positions,
        through_positions_made_channels,
        a_linear_layer_that_scales,
        a_linear_layer_with_one_number_for_all,
        a_linear_layer_whose_weight_is_computed,
        a_sum_with_the_input,
        a_sum_with_a_number_per_channel,
        a_gate_of_one_channel,
        a_sum_with_its_own_result,
        a_weight_that_is_computed,
        a_normalisation_over_channels,
    ],
)
def test_it_stays(case: Case) -> None:
    net = Net()
    graph = net.graph([case(net)])
    assert not fold(graph)
    assert "Gather" in kinds(graph)


def test_an_intermediate_tensor_that_the_model_returns_keeps_its_order() -> None:
    net = Net()
    x = net.conv("input", "a", 16, 16)
    y = net.conv(net.shuffle(x, "shuffle", 16), "b", 16, 16, groups=4)
    assert not fold(net.graph([y, x]))


def test_a_pool_whose_positions_are_read_keeps_its_order() -> None:
    net = Net()
    x = net.op("MaxPool", [net.conv("input", "a", 16, 16)], "pool", kernel_shape=[2, 2])
    net.nodes[-1].output.append("positions")
    y = net.conv(net.shuffle(x, "shuffle", 16), "b", 16, 16, groups=4)
    graph = net.graph([y, net.op("Cast", ["positions"], "seen", to=1)])
    assert not fold(graph)
