"""Batch norms vanish into the layer before them, where nothing else sees its result."""

import numpy as np
import pytest

from tests.runtime.nets import Net, answers, kinds, same
from wenet_runtime.lowering.fold_batchnorm import fold_batchnorms


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_takes_its_batch_norm_in(bias: bool, groups: int) -> None:
    net = Net()
    x = net.conv("input", "conv", 16, 32, groups=groups, bias=bias)
    graph = net.graph([net.op("Relu", [net.norm(x, "bn", 32)], "relu")])
    before = answers(graph)
    fold_batchnorms(graph)
    assert kinds(graph) == ["Conv", "Relu"]
    assert same(answers(graph), before)


def test_a_depthwise_convolution_takes_its_batch_norm_in() -> None:
    net = Net()
    graph = net.graph([net.op("Relu", [net.norm(net.depthwise("input", "conv", 16), "bn", 16)], "relu")])
    before = answers(graph)
    fold_batchnorms(graph)
    assert kinds(graph) == ["Conv", "Relu"]
    assert same(answers(graph), before)


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_matrix_product_takes_its_batch_norm_in(bias: bool, turned: bool) -> None:
    net = Net()
    x = net.op("Flatten", [net.op("GlobalAveragePool", ["input"], "pool")], "rows", axis=1)
    x = net.norm(net.linear(x, "fc", 16, 24, bias=bias, turned=turned), "bn", 24)
    graph = net.graph([net.op("Relu", [x], "relu")])
    before = answers(graph)
    fold_batchnorms(graph)
    assert kinds(graph) == ["GlobalAveragePool", "Flatten", "Gemm", "Relu"]
    assert same(answers(graph), before)


def test_a_matrix_product_that_scales_is_left_alone() -> None:
    net = Net()
    x = net.op("Flatten", [net.op("GlobalAveragePool", ["input"], "pool")], "rows", axis=1)
    graph = net.graph([net.norm(net.linear(x, "fc", 16, 24, alpha=2), "bn", 24)])
    fold_batchnorms(graph)
    assert kinds(graph)[-2:] == ["Gemm", "BatchNormalization"]


def test_a_batch_norm_that_is_the_model_s_output_keeps_the_output_s_name() -> None:
    net = Net()
    graph = net.graph([net.norm(net.conv("input", "conv", 16, 16), "bn", 16)])
    before = answers(graph)
    fold_batchnorms(graph)
    assert kinds(graph) == ["Conv"]
    assert same(answers(graph), before)


def test_a_convolution_with_another_reader_is_left_alone() -> None:
    net = Net()
    x = net.conv("input", "conv", 16, 16)
    graph = net.graph([net.op("Add", [net.norm(x, "bn", 16), x], "add")])
    before = answers(graph)
    fold_batchnorms(graph)
    assert kinds(graph) == ["Conv", "BatchNormalization", "Add"]
    assert same(answers(graph), before)


def test_a_convolution_that_the_model_returns_is_left_alone() -> None:
    net = Net()
    x = net.conv("input", "conv", 16, 16)
    graph = net.graph([x, net.norm(x, "bn", 16)])
    fold_batchnorms(graph)
    assert kinds(graph) == ["Conv", "BatchNormalization"]


def test_a_batch_norm_behind_something_else_is_left_alone() -> None:
    net = Net()
    first = net.norm("input", "bn1", 16)
    graph = net.graph([net.norm(net.op("Relu", [first], "relu"), "bn2", 16)])
    fold_batchnorms(graph)
    assert kinds(graph) == ["BatchNormalization", "Relu", "BatchNormalization"]


def test_a_batch_norm_whose_numbers_are_computed_is_left_alone() -> None:
    net = Net()
    x = net.conv("input", "conv", 16, 16)
    graph = net.graph([net.norm(x, "bn", 16)])
    net.op("Abs", ["bn.scale"], "computed")
    graph.nodes.insert(0, net.nodes[-1])
    graph.node("bn").input[1] = "computed"
    before = answers(graph)
    fold_batchnorms(graph)
    assert kinds(graph) == ["Abs", "Conv", "BatchNormalization"]
    assert same(answers(graph), before)


def test_two_convolutions_may_share_a_weight_and_fold_apart() -> None:
    net = Net()
    first = net.norm(net.conv("input", "one", 16, 16), "bn1", 16)
    second = net.norm(net.op("Conv", ["input", "one.w"], "two", kernel_shape=[1, 1]), "bn2", 16)
    graph = net.graph([net.op("Add", [first, second], "add")])
    before = answers(graph)
    fold_batchnorms(graph)
    assert kinds(graph) == ["Conv", "Conv", "Add"]
    assert same(answers(graph), before)


def test_the_comparison_used_here_sees_a_wrong_fold() -> None:
    net = Net()
    graph = net.graph([net.norm(net.conv("input", "conv", 16, 16), "bn", 16)])
    before = answers(graph)
    graph.numbers["bn.scale"] = graph.numbers["bn.scale"] * np.float32(1.001)
    fold_batchnorms(graph)
    assert not same(answers(graph), before)
