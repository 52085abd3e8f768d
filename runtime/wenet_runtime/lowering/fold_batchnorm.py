"""Folds a batch norm into the layer that feeds it: W' = W·γ/σ, b' = (b − μ)·γ/σ + β (paper, eq. 4)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from wenet_runtime.lowering.graph import Graph, attribute
from wenet_runtime.lowering.operators import has_bias, is_layer, output_axis


def fold_batchnorms(graph: Graph) -> None:
    """Fold every batch norm whose only feeder is a convolution or a matrix product with numbers of its own.

    A batch norm that cannot be folded (its input has other readers, or is no layer's) stays
    as it is, which is as exact.
    """
    for node in [node for node in graph.nodes if node.op_type == "BatchNormalization"]:
        feeder = graph.producer(node.input[0])
        if feeder is None or not is_layer(graph, feeder):
            continue
        if len(graph.consumers(node.input[0])) != 1 or graph.is_output(node.input[0]):
            continue
        if any(name not in graph.numbers for name in node.input[1:5]):
            continue
        _fold(graph, feeder, node)


def _fold(graph: Graph, layer: NodeProto, norm: NodeProto) -> None:
    # The scale in float64, so that folding adds no error worth counting; the weights are many and stay float32.
    gamma, beta, mean, variance = (graph.numbers[name].astype(np.float64) for name in norm.input[1:5])
    scale = gamma / np.sqrt(variance + float(attribute(norm, "epsilon", 1e-5)))
    weight: NDArray[Any] = graph.numbers[layer.input[1]]
    bias = graph.numbers[layer.input[2]].astype(np.float64) if has_bias(layer) else np.zeros_like(mean)
    axis = output_axis(layer)
    per_output = scale.reshape((-1,) + (1,) * (weight.ndim - 1 - axis))
    graph.own_number(layer, 1, weight * per_output.astype(weight.dtype))
    graph.own_number(layer, 2, ((bias - mean) * scale + beta).astype(weight.dtype))
    graph.bypass(norm)
