"""Grouped matrix products become convolutions, and what lies between two of them keeps their shape."""

from typing import Any, Callable, Tuple

import numpy as np
import pytest
from onnx import helper

from tests.runtime.nets import Net, answers, kinds, same
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.lowering.images import as_convolution, keep_images
from wenet_runtime.materialize import block_diagonal

Between = Callable[[Net, str], str]


def rows(net: Net) -> str:
    """The input's channels, (batch, 16)."""
    return net.op("Flatten", [net.op("ReduceMean", ["input"], "mean", axes=[2, 3], keepdims=1)], "rows", axis=1)


def grouped(graph: Graph, name: str, groups: int) -> None:
    """Enable the block diagonal of a Gemm."""
    node = graph.node(name)
    as_convolution(graph, node, block_diagonal(graph.numbers[node.input[1]], groups), groups)


def masked(graph: Graph, name: str, groups: int) -> None:
    """The same as a dense product with zeros between the blocks."""
    node = graph.node(name)
    graph.own_number(node, 1, block_diagonal(graph.numbers[node.input[1]], groups, 1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [2, 4, 16])
def test_a_convolution_answers_as_the_masked_product(groups: int, bias: bool) -> None:
    found = []
    for enable in (grouped, masked):
        net = Net()
        graph = net.graph([net.linear(rows(net), "fc", 16, 32, bias=bias)])
        enable(graph, "fc", groups)
        found.append(answers(graph))
    assert same(*found)


def test_the_values_keep_their_name_unless_the_model_returns_them() -> None:
    net = Net()
    x = net.linear(rows(net), "a", 16, 16)
    graph = net.graph([net.linear(net.op("Relu", [x], "relu"), "b", 16, 16)])
    grouped(graph, "a", 4)
    grouped(graph, "b", 4)
    assert graph.node("a").output[0] == "a"
    assert graph.node("b").output[0] != "b"
    assert [value.name for value in graph.outputs] == ["b"]


def two_layers(between: Between) -> Graph:
    """Two grouped products with something between."""
    net = Net()
    x = between(net, net.linear(rows(net), "a", 16, 16))
    graph = net.graph([net.op("Abs", [net.linear(x, "b", 16, 16)], "answer")])
    for name in ("a", "b"):
        grouped(graph, name, 4)
    return graph


def activations(net: Net, x: str) -> str:
    return net.op("Sigmoid", [net.op("Relu", [x], "relu")], "sigmoid")


def clip(net: Net, x: str) -> str:
    low, high = (net.number(name, np.float32(value)) for name, value in (("low", -0.5), ("high", 0.5)))
    return net.op("Clip", [x, low, high], "clip")


def norm_and_shuffle(net: Net, x: str) -> str:
    return net.shuffle(net.norm(x, "norm", 16), "shuffle", 16)


def nothing(net: Net, x: str) -> str:
    return x


@pytest.mark.parametrize("between", [activations, clip, norm_and_shuffle, nothing])
def test_between_two_grouped_layers_no_shape_changes(between: Between) -> None:
    graph = two_layers(between)
    before = answers(graph)
    keep_images(graph)
    assert same(answers(graph), before)
    assert kinds(graph).count("Reshape") == kinds(graph).count("Flatten") - 1 == 1
    assert kinds(graph)[-2:] == ["Abs", "Flatten"] or kinds(graph)[-2:] == ["Flatten", "Abs"]


def over_rows(net: Net, x: str) -> str:
    return net.op("Softmax", [x], "softmax", axis=-1)


def a_shuffle_from_the_end(net: Net, x: str) -> str:
    order = net.number("order", np.arange(16)[::-1].copy())
    return net.op("Gather", [x, order], "shuffle", axis=-1)


def read_twice(net: Net, x: str) -> str:
    return net.op("Add", [net.op("Relu", [x], "relu"), x], "sum")


def read_twice_by_one(net: Net, x: str) -> str:
    return net.op("Mul", [x, x], "square")


def a_sum_with_numbers(net: Net, x: str) -> str:
    return net.op("Add", [x, net.number("offset", np.linspace(-1, 1, 16, dtype=np.float32))], "sum")


@pytest.mark.parametrize(
    "between", [over_rows, a_shuffle_from_the_end, read_twice, read_twice_by_one, a_sum_with_numbers]
)
def test_what_needs_rows_gets_rows(between: Between) -> None:
    graph = two_layers(between)
    before = answers(graph)
    keep_images(graph)
    assert same(answers(graph), before)
    assert kinds(graph).count("Reshape") == 2


def pooled(kind: str, *sizes: int) -> Graph:
    """The input in another form → pool → Flatten → shuffle → grouped product."""
    net = Net()
    x = net.op("Reshape", ["input", net.number("sizes", np.array([0, 16, *sizes]))], "formed")
    x = net.op("Flatten", [net.op(kind, [net.op("Relu", [x], "relu")], "pool")], "flat", axis=1)
    graph = net.graph([net.linear(net.shuffle(x, "shuffle", 16), "fc", 16, 16)])
    grouped(graph, "fc", 4)
    return graph


@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool"])
def test_a_pooled_image_is_handed_on_as_it_is(kind: str) -> None:
    graph = pooled(kind, 9, 4)
    before = answers(graph)
    keep_images(graph)
    assert kinds(graph)[2:] == [kind, "Gather", "Conv", "Flatten"]
    assert same(answers(graph), before)


@pytest.mark.parametrize("sizes", [(36,), (6, 3, 2)])
@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool"])
def test_pooled_signals_and_volumes_become_rows_and_then_images(kind: str, sizes: Tuple[int, ...]) -> None:
    graph = pooled(kind, *sizes)
    before, data = answers(graph), graph.to_bytes()
    keep_images(graph)
    assert graph.to_bytes() == data
    assert same(answers(graph), before)


def test_a_pool_of_an_unknown_number_of_axes_becomes_rows() -> None:
    graph = pooled("GlobalAveragePool", 9, 4)
    for value in graph.inputs:
        value.type.tensor_type.ClearField("shape")
    graph.bypass(graph.node("formed"))
    data = graph.to_bytes()
    keep_images(graph)
    assert graph.to_bytes() == data


def flattened_behind(kind: str, **attributes: Any) -> Graph:
    """conv → something → Flatten → ReLU, where positions are many or not known."""
    net = Net()
    x = net.op(kind, [net.conv("input", "a", 16, 16, groups=4)], "it", **attributes)
    return net.graph([net.op("Abs", [net.op("Relu", [net.op("Flatten", [x], "flat", axis=1)], "relu")], "answer")])


@pytest.mark.parametrize("kind", ["Relu", "MaxPool"])
def test_many_positions_are_left_flattened_where_they_were(kind: str) -> None:
    graph = flattened_behind(kind, **({"kernel_shape": [2, 2]} if kind == "MaxPool" else {}))
    data = graph.to_bytes()
    keep_images(graph)
    assert graph.to_bytes() == data


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_padded_convolution_of_an_image_is_not_taken_for_one_of_a_single_position(kernel: int) -> None:
    net = Net()
    image = net.op("Reshape", [rows(net), net.number("shape", np.array([0, 16, 1, 1]))], "image")
    weight = net.number("w", net.random.normal(size=(16, 16, kernel, kernel)).astype(np.float32))
    x = net.op("Conv", [image, weight], "conv", kernel_shape=[kernel, kernel], pads=[1, 1, 1, 1])
    graph = net.graph([net.op("Relu", [net.op("Flatten", [x], "flat", axis=1)], "relu")])
    data = graph.to_bytes()
    keep_images(graph)
    assert graph.to_bytes() == data


def test_a_number_read_by_the_answer_keeps_the_answer_s_name() -> None:
    net = Net()
    x = net.linear(rows(net), "a", 16, 16)
    graph = net.graph([net.op("Relu", [x], "relu")])
    grouped(graph, "a", 4)
    before = answers(graph)
    keep_images(graph)
    assert kinds(graph)[-2:] == ["Flatten", "Relu"]
    assert same(answers(graph), before)


def test_the_comparison_used_here_sees_a_wrong_group() -> None:
    graph, wrong = two_layers(norm_and_shuffle), two_layers(norm_and_shuffle)
    node = wrong.node("b")
    wrong.own_number(node, 1, np.roll(wrong.numbers[node.input[1]], 4, axis=0))
    assert not same(answers(graph), answers(wrong))
    assert helper.get_attribute_value(node.attribute[0]) == 4
