"""Folds a batch norm into the convolution that feeds it: W' = W·γ/σ, b' = (b − μ)·γ/σ + β (paper, eq. 4)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from wenet_runtime.lowering.graph import Graph, attribute


def fold_batchnorms(graph: Graph) -> None:
    """Fold every batch norm whose only feeder is a convolution with numbers of its own.

    A batch norm that cannot be folded (its input has other readers, or is no convolution's) stays
    as it is, which is as exact.
    """
    for node in [node for node in graph.nodes if node.op_type == "BatchNormalization"]:
        feeder = graph.producer(node.input[0])
        if feeder is None or feeder.op_type != "Conv" or feeder.input[1] not in graph.numbers:
            continue
        if len(graph.consumers(node.input[0])) != 1 or graph.is_output(node.input[0]):
            continue
        if any(name not in graph.numbers for name in (*node.input[1:5], *filter(None, feeder.input[2:3]))):
            continue
        _fold(graph, feeder, node)


def _fold(graph: Graph, conv: NodeProto, norm: NodeProto) -> None:
    # The scale in float64, so that folding adds no error worth counting; the weights are many and stay float32.
    gamma, beta, mean, variance = (graph.numbers[name].astype(np.float64) for name in norm.input[1:5])
    scale = gamma / np.sqrt(variance + float(attribute(norm, "epsilon", 1e-5)))
    weight: NDArray[Any] = graph.numbers[conv.input[1]]
    has_bias = len(conv.input) > 2 and conv.input[2] != ""
    bias = graph.numbers[conv.input[2]].astype(np.float64) if has_bias else np.zeros_like(mean)
    per_output = scale.reshape((-1,) + (1,) * (weight.ndim - 1))
    graph.own_number(conv, 1, weight * per_output.astype(weight.dtype))
    graph.own_number(conv, 2, ((bias - mean) * scale + beta).astype(weight.dtype))
    graph.bypass(norm)
