"""Writes a float graph in int8: pairs of QuantizeLinear and DequantizeLinear that an engine fuses (opset 13).

Activations are uint8 with one scale a tensor, weights int8 with one scale an output channel around zero,
biases int32 in the product of both scales. What no range is known of stays in float, as do the model's own
inputs and outputs. A range belongs to a whole tensor, so no order of channels matters to it.

The symmetric form is what TensorRT's parser takes: activations int8 around zero, weights as floats that are
rounded by a pair of their own, biases in float.
"""

import fnmatch
from typing import AbstractSet, Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.lowering.operators import has_bias, is_layer, output_axis

Ranges = Mapping[str, Tuple[float, float]]

# They hand on the values they read: both sides share one scale, and engines run them on the integers.
_HANDS_ON = frozenset(("Gather", "MaxPool", "Reshape", "Flatten", "Transpose", "Identity", "Squeeze", "Unsqueeze"))
# Activations that an engine merges into what is before them, so nothing is rounded in between.
_MERGED = frozenset(("Relu", "Clip"))
# Engines have them in int8, and in float they would bring their neighbours' results back to float.
_BETWEEN = frozenset(("Add", "Mul", "Sigmoid", "GlobalAveragePool", "AveragePool"))
_LIMIT, _REDUCED_LIMIT = 127, 64
_LARGEST_BIAS = 2.0**30  # in steps of its scale: leaves an int32 room for the products


def activation_names(graph: Graph) -> Tuple[str, ...]:
    """The tensors whose ranges `quantize` needs, in the graph's order. They may be among the model's inputs."""
    return tuple(dict.fromkeys(_origin(graph, tensor) for tensor in _rounded(graph)))


def holders(graph: Graph, tensor: str) -> Tuple[str, ...]:
    """The tensors that hold a tensor's values in any order and shape, itself first: they share its range."""
    found = [tensor]
    for one in found:
        for reader in graph.consumers(one):
            if reader.op_type in _HANDS_ON and reader.input[0] == one:
                found.append(reader.output[0])
    return tuple(found)


def quantize(
    graph: Graph,
    ranges: Ranges,
    *,
    reduce_range: bool = False,
    symmetric: bool = False,
    fp32_layers: Sequence[str] = (),
) -> None:
    """Write every convolution and matrix product whose input's range is known in int8, in place.

    Args:
        graph: a lowered graph: batch norms folded, weights in place.
        ranges: smallest and largest value of a tensor, by name; see `activation_names`. Any tensor that holds
            the same values will do, so that ranges outlive another emission of the same mode.
        reduce_range: weights of 7 bits. x86 processors without VNNI add two products of uint8 and int8 in
            16 bits: 255 · 127 · 2 overflows there, 255 · 64 · 2 does not.
        symmetric: every zero point is 0 and every integer an int8; costs what lies behind a ReLU one of its bits.
        fp32_layers: names of nodes, with * and ?, that stay in float and read what was not rounded.

    Raises:
        BundleError: a range that is none.
    """
    scale = _symmetric_scale if symmetric else _scale
    kept = {node.name for node in graph.nodes if any(fnmatch.fnmatchcase(node.name, one) for one in fp32_layers)}
    scales = {tensor: scale(tensor, *bounds) for tensor, bounds in _known(graph, ranges).items()}
    found = (node for node in graph.nodes if is_layer(graph, node) and node.name not in kept)
    layers = {node.name: node.input[0] for node in found if node.input[0] in scales}
    if not layers:
        return
    for tensor in [tensor for tensor in _rounded(graph) if tensor in scales]:
        _round(graph, tensor, *scales[tensor], kept=kept)
    limit = _REDUCED_LIMIT if reduce_range else _LIMIT
    for name, tensor in layers.items():
        if symmetric:
            _round_weight(graph, graph.node(name), limit)
        else:
            _quantize_numbers(graph, graph.node(name), scales[tensor][0], limit)


def _rounded(graph: Graph) -> List[str]:
    """The tensors that get a pair: what a layer reads, and what lies between layers. A result nobody reads stays."""
    found: List[str] = []
    for node in graph.nodes:
        if is_layer(graph, node):
            found.append(node.input[0])
        if node.op_type in _BETWEEN or (node.op_type == "Conv" and is_layer(graph, node)):
            found.append(_result(graph, node))
    return list(dict.fromkeys(tensor for tensor in found if graph.consumers(tensor)))


def _result(graph: Graph, node: NodeProto) -> str:
    """What a node makes, behind an activation that is merged into it."""
    tensor: str = node.output[0]
    readers = graph.consumers(tensor)
    if len(readers) == 1 and readers[0].op_type in _MERGED and not graph.is_output(tensor):
        return str(readers[0].output[0])
    return tensor


def _origin(graph: Graph, tensor: str) -> str:
    """Where a tensor's values come from."""
    maker = graph.producer(tensor)
    while maker is not None and maker.op_type in _HANDS_ON:
        tensor = maker.input[0]
        maker = graph.producer(tensor)
    return tensor


def _known(graph: Graph, ranges: Ranges) -> Dict[str, Tuple[float, float]]:
    """The range of every tensor that holds the same values as one in `ranges`."""
    known: Dict[str, Tuple[float, float]] = {}
    for origin in activation_names(graph):
        names = holders(graph, origin)
        given = next((name for name in names if name in ranges), None)
        if given is not None:
            known.update(dict.fromkeys(names, ranges[given]))
    return known


def _scale(tensor: str, low: float, high: float) -> Tuple[NDArray[Any], NDArray[Any]]:
    """Scale and zero point of a uint8 tensor. Zero is one of its values exactly, as padding and ReLU need it."""
    _check_range(tensor, low, high)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = _step((high - low) / 255)
    return scale, np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)


def _symmetric_scale(tensor: str, low: float, high: float) -> Tuple[NDArray[Any], NDArray[Any]]:
    """Scale and zero point of an int8 tensor around zero."""
    _check_range(tensor, low, high)
    return _step(max(abs(low), abs(high)) / _LIMIT), np.array(0, np.int8)


def _check_range(tensor: str, low: float, high: float) -> None:
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise BundleError(f"'{tensor}' cannot have values from {low} to {high}: observe the mode's ranges again")


def _step(size: float) -> NDArray[Any]:
    step = np.float32(size)
    return np.array(step if step > 0 else 1, np.float32)  # always zero, or as good as: any scale will do


def _round(graph: Graph, tensor: str, scale: NDArray[Any], zero: NDArray[Any], *, kept: AbstractSet[str]) -> None:
    """Let every reader of a tensor, but for kept ones, read it rounded to the integers of its zero point's type."""
    readers = [reader for reader in graph.consumers(tensor) if reader.name not in kept]
    if not readers:
        return
    how, steps = [f"{tensor}.step", f"{tensor}.zero"], f"{tensor}.{zero.dtype}"
    # These scalars stand in the graph itself: who optimises it must see which of them are equal.
    added = [
        helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(value))
        for name, value in zip(how, (scale, zero))
    ]
    added += [
        helper.make_node("QuantizeLinear", [tensor, *how], [steps], name=steps),
        helper.make_node("DequantizeLinear", [steps, *how], [f"{tensor}.rounded"], name=f"{tensor}.rounded"),
    ]
    maker = graph.producer(tensor)
    if maker is not None:
        graph.replace(maker, [maker, *added])
    else:  # one of the model's inputs
        first = next(node for node in graph.nodes if tensor in node.input)
        graph.replace(first, [*added, first])
    for reader in readers:
        for position, name in enumerate(reader.input):
            if name == tensor:
                graph.connect(reader, position, f"{tensor}.rounded")


def _quantize_numbers(graph: Graph, node: NodeProto, input_scale: NDArray[Any], limit: int) -> None:
    """Give a layer int8 weights and an int32 bias, each behind a DequantizeLinear."""
    weight = graph.numbers[node.input[1]]
    axis = output_axis(node)
    bias: Optional[NDArray[Any]] = graph.numbers[node.input[2]] if has_bias(node) else None
    scale = _largest(weight, axis) / limit
    if bias is not None:  # beside tiny weights a bias would overflow
        scale = np.maximum(scale, np.abs(bias) / (float(input_scale) * _LARGEST_BIAS))
    scale = scale.astype(np.float32)
    scale[~(scale > 0)] = 1  # an output of zeros
    along = scale.reshape((-1,) + (1,) * (weight.ndim - 1 - axis))
    steps = np.clip(np.rint(weight / along), -limit, limit).astype(np.int8)
    added = [_number(graph, node, 1, steps, scale, axis)]
    if bias is not None:
        product = scale * input_scale
        added.append(_number(graph, node, 2, np.rint(bias.astype(np.float64) / product).astype(np.int32), product, 0))
    graph.replace(node, [*added, node])
    for position, one in enumerate(added, start=1):
        graph.connect(node, position, one.output[0])


def _round_weight(graph: Graph, node: NodeProto, limit: int) -> None:
    """Let a layer read its float weight rounded to int8; its bias stays."""
    axis, name = output_axis(node), f"{node.name}.1"
    scale = (_largest(graph.numbers[node.input[1]], axis) / limit).astype(np.float32)
    scale[~(scale > 0)] = 1  # an output of zeros
    how = [f"{name}.step", f"{name}.zero"]
    graph.numbers.update(zip(how, (scale, np.zeros(scale.shape, np.int8))))
    steps, rounded = f"{name}.steps", f"{name}.rounded"
    added = [
        helper.make_node("QuantizeLinear", [node.input[1], *how], [steps], name=steps, axis=axis),
        helper.make_node("DequantizeLinear", [steps, *how], [rounded], name=rounded, axis=axis),
    ]
    graph.replace(node, [*added, node])
    graph.connect(node, 1, rounded)


def _largest(weight: NDArray[Any], axis: int) -> NDArray[Any]:
    """The largest absolute number of each output."""
    largest: NDArray[Any] = np.abs(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1).max(axis=1)
    return largest.astype(np.float64)


def _number(
    graph: Graph, node: NodeProto, position: int, steps: NDArray[Any], scale: NDArray[Any], axis: int
) -> NodeProto:
    """The node that makes a layer's integers float again; adds them to the graph's numbers."""
    name = f"{node.name}.{position}"
    inputs = [f"{name}.steps", f"{name}.step"]
    graph.numbers[inputs[0]], graph.numbers[inputs[1]] = steps, scale
    if steps.dtype == np.int8:  # int32 has no zero point in opset 13
        inputs.append(f"{name}.zero")
        graph.numbers[inputs[2]] = np.zeros(scale.shape, np.int8)
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.rounded"], name=f"{name}.rounded", axis=axis)
