"""What operators do to channels: which treat all alike, and what convolutions and matrix products have in common."""

from typing import Tuple

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from wenet_runtime.lowering.graph import Graph, attribute

# They treat every number alike.
ELEMENTWISE = frozenset(
    ("Relu", "LeakyRelu", "Elu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Erf", "Sqrt", "Abs")
    + ("Neg", "Exp", "Identity", "Clip")
)
# They treat every channel of an image alike.
POOLS = frozenset(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"))


def is_layer(graph: Graph, node: NodeProto) -> bool:
    """Whether a node is a convolution or a plain matrix product, x · W + b, with numbers of its own."""
    if node.op_type not in ("Conv", "Gemm") or any(name and name not in graph.numbers for name in node.input[1:]):
        return False
    if node.op_type == "Conv":
        return True
    plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
    if not plain or attribute(node, "transA", 0):
        return False
    bias = graph.numbers[node.input[2]].shape if has_bias(node) else None
    return bias is None or bias == (graph.numbers[node.input[1]].shape[output_axis(node)],)


def has_bias(node: NodeProto) -> bool:
    """Whether a layer adds a number to each of its outputs."""
    return len(node.input) > 2 and node.input[2] != ""


def output_axis(node: NodeProto) -> int:
    """Along which axis a layer's weight has its outputs."""
    return 1 if node.op_type == "Gemm" and not attribute(node, "transB", 0) else 0


def layer_channels(graph: Graph, node: NodeProto) -> Tuple[int, int, int]:
    """(groups, input channels, output channels) of a layer; see `is_layer`."""
    weight = graph.numbers[node.input[1]]
    groups, outputs = int(attribute(node, "group", 1)), output_axis(node)
    return groups, int(weight.shape[1 - outputs]) * groups, int(weight.shape[outputs])


def is_depthwise(graph: Graph, node: NodeProto) -> bool:
    """Whether a layer computes every channel from itself alone."""
    groups, inputs, outputs = layer_channels(graph, node)
    return groups == inputs == outputs and groups > 1


def keeps_channels(graph: Graph, node: NodeProto) -> bool:
    """Whether a node only adds or removes axes of size one behind the channels, if both sides have as many channels."""
    if node.op_type == "Flatten":
        return bool(attribute(node, "axis", 1) == 1)
    return node.op_type == "Reshape" and _keeps_batch_and_channels(graph.numbers.get(node.input[1]))


def _keeps_batch_and_channels(shape: "NDArray[np.int64] | None") -> bool:
    """Whether a shape to reshape to is (the same batch, C, 1, …): no position can end up in the batch."""
    return shape is not None and shape.size >= 2 and bool(shape[0] == 0 < shape[1] and (shape[2:] == 1).all())
