"""Grouped matrix products as grouped 1×1 convolutions on images of one position, which every engine has.

For one row this is the quickest way to emit them under ONNX Runtime (docs/lowering.md), and what holds for
convolutions (folding, moving blocks of channels, int8) then holds for them.
"""

from typing import Any, Mapping, Optional, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from wenet_runtime.lowering.graph import Graph, attribute
from wenet_runtime.lowering.operators import ELEMENTWISE, has_bias, keeps_channels


def as_convolution(graph: Graph, node: NodeProto, weight: NDArray[Any], groups: int) -> None:
    """Replace a matrix product by a grouped convolution, between a change of shape into an image and one back.

    Args:
        graph: changed in place.
        node: the Gemm; its name becomes the convolution's.
        weight: (out, in / groups), for each output its own group's inputs.
        groups: that divide the inputs and the outputs.
    """
    name, made = node.name, node.output[0]
    shape, image = f"{name}.shape", f"{name}.image"
    # The batch is copied: a shape that could not swallow positions as images is one that passes may trust.
    graph.numbers[shape] = np.array([0, weight.shape[1] * groups, 1, 1], dtype=np.int64)
    graph.own_number(node, 1, weight.reshape(weight.shape + (1, 1)))
    numbers = [node.input[1]] + ([node.input[2]] if has_bias(node) else [])
    # The values keep their name, under which their range may be known.
    result = f"{name}.result" if graph.is_output(made) else made
    row = made if graph.is_output(made) else _row(made)
    readers = graph.consumers(made)
    graph.replace(
        node,
        [
            helper.make_node("Reshape", [node.input[0], shape], [image], name=f"{name}.reshape"),
            helper.make_node("Conv", [image, *numbers], [result], name=name, group=groups, kernel_shape=[1, 1]),
            helper.make_node("Flatten", [result], [row], name=f"{name}.flatten", axis=1),
        ],
    )
    if row != made:
        _reconnect(graph, readers, made, row)


def keep_images(graph: Graph) -> None:
    """Let images of one position stay images, through what changes no shape, up to the next such convolution."""
    if not any(_makes_image(graph, node) for node in graph.nodes):
        return  # nobody takes images again, and finding shapes takes long
    shapes = graph.shapes()
    flattens = [node for node in graph.nodes if node.op_type == "Flatten" and _flattens_image(graph, node, shapes)]
    for flatten in flattens:
        moved: Optional[NodeProto] = flatten
        while moved is not None:
            moved = _sink(graph, moved)


def _flattens_image(graph: Graph, flatten: NodeProto, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether what a node flattens is known to be an image of one position: two axes of size one vanish, no more."""
    maker = graph.producer(flatten.input[0])
    if maker is None or attribute(flatten, "axis", 1) != 1:
        return False
    if maker.op_type in ("GlobalAveragePool", "GlobalMaxPool"):
        return len(shapes.get(maker.input[0], ())) == 4  # signals have three axes, volumes five
    source = graph.producer(maker.input[0])
    if maker.op_type != "Conv" or source is None or not _makes_image(graph, source):
        return False
    weight = graph.numbers.get(maker.input[1])
    plain = {entry.name for entry in maker.attribute} <= {"group", "kernel_shape"}  # nothing is padded
    return plain and weight is not None and weight.shape[2:] == (1, 1)


def _sink(graph: Graph, flatten: NodeProto) -> Optional[NodeProto]:
    """Move a Flatten behind its only reader, or let it vanish together with what makes images again.

    Returns:
        The Flatten that took its place, None when there is nothing more to be done.
    """
    row = flatten.output[0]
    readers = graph.consumers(row)
    if not readers or graph.is_output(row):
        return None
    if all(_makes_image(graph, reader) for reader in readers):
        for node in (*readers, flatten):
            graph.bypass(node)
        return None
    (reader, *others) = readers
    made = reader.output[0]
    if others or graph.is_output(made) or not _takes_images(graph, reader, row):
        return None
    behind = graph.consumers(made)
    graph.bypass(flatten)
    moved = helper.make_node("Flatten", [made], [_row(made)], name=f"{made}.flatten", axis=1)
    graph.replace(reader, [reader, moved])
    _reconnect(graph, behind, made, moved.output[0])
    return moved


def _makes_image(graph: Graph, node: NodeProto) -> bool:
    return node.op_type == "Reshape" and keeps_channels(graph, node) and len(graph.numbers[node.input[1]]) == 4


def _takes_images(graph: Graph, node: NodeProto, row: str) -> bool:
    """Whether a node does the same to images of one position as to rows."""
    if list(node.input).index(row) or row in node.input[1:] or len(node.output) != 1:
        return False
    order = graph.numbers.get(node.input[1]) if node.op_type == "Gather" else None
    permutes = order is not None and order.ndim == 1 and attribute(node, "axis", 0) == 1
    return permutes or node.op_type == "BatchNormalization" or node.op_type in ELEMENTWISE


def _row(tensor: str) -> str:
    """The name of a tensor's values as rows."""
    return f"{tensor}.row"


def _reconnect(graph: Graph, readers: Sequence[NodeProto], old: str, new: str) -> None:
    """Let these nodes read another tensor."""
    for reader in readers:
        for position, name in enumerate(reader.input):
            if name == old:
                graph.connect(reader, position, new)
