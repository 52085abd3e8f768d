"""Convolutions and matrix products tell their channels; what only changes the number of axes is known."""

import numpy as np
import pytest

from tests.runtime.nets import Net
from wenet_runtime.lowering.operators import has_bias, is_depthwise, is_layer, keeps_channels, layer_channels


def test_channels_are_read_from_the_weight_of_either_form() -> None:
    net = Net()
    net.conv("input", "conv", 16, 32, groups=4)
    net.depthwise("input", "deep", 16)
    net.linear("row", "fc", 8, 24)
    net.linear("row", "turned", 8, 24, turned=True, bias=False)
    graph = net.graph(["conv"])
    found = {node.name: layer_channels(graph, node) for node in graph.nodes}
    assert found == {"conv": (4, 16, 32), "deep": (16, 16, 16), "fc": (1, 8, 24), "turned": (1, 8, 24)}
    assert [node.name for node in graph.nodes if is_depthwise(graph, node)] == ["deep"]
    assert [node.name for node in graph.nodes if not has_bias(node)] == ["turned"]
    assert all(is_layer(graph, node) for node in graph.nodes)


def test_what_is_no_plain_product_with_numbers_of_its_own_is_no_layer() -> None:
    net = Net()
    net.linear("row", "scaled", 8, 24, alpha=0.5)
    net.linear("row", "short", 8, 24)
    net.numbers["short.b"] = net.numbers["short.b"][:1]
    net.linear("row", "fine", 8, 24)
    net.op("Gemm", ["row", "fine.w"], "transposed", transA=1, transB=1)
    net.op("Gemm", ["row", "made"], "computed", transB=1)
    net.op("Gemm", ["row", "fine.w", "made"], "computed bias", transB=1)
    net.op("MatMul", ["row", "fine.w"], "product")
    graph = net.graph(["fine"])
    assert [node.name for node in graph.nodes if is_layer(graph, node)] == ["fine"]


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ([0, 16, 1, 1], True),
        ([0, 16], True),
        ([-1, 16, 1, 1], False),
        ([0, -1, 1, 1], False),
        ([0, 4, 4, 1], False),
        ([0], False),
    ],
)
def test_a_reshape_keeps_channels_only_where_the_batch_and_the_single_position_are_sure(shape, kept) -> None:
    net = Net()
    net.op("Reshape", ["input", net.number("shape", np.array(shape))], "reshape")
    graph = net.graph(["reshape"])
    assert keeps_channels(graph, graph.node("reshape")) is kept


def test_a_flatten_behind_the_channels_is_no_flatten_before_them() -> None:
    net = Net()
    net.op("Flatten", ["input"], "behind", axis=1)
    net.op("Flatten", ["input"], "before", axis=2)
    net.op("Relu", ["input"], "other")
    graph = net.graph(["behind"])
    assert [node.name for node in graph.nodes if keeps_channels(graph, node)] == ["behind"]
