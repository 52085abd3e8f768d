"""Gives a set of tensors another channel order, writing it into the weights around them.

The set rule: take every tensor tied to one tensor's channel order (through activations, pooling,
depthwise convolutions, sums and products, and between rows and images of one position). If every other
operator on the border of that set is a layer (a convolution or a matrix product) whose groups the new
order does not leave, the order can live in its rows or columns.
"""

from typing import Any, Dict, List, Optional, Set, Tuple

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from wenet_runtime.lowering.graph import Graph
from wenet_runtime.lowering.operators import (
    ELEMENTWISE,
    POOLS,
    has_bias,
    is_depthwise,
    is_layer,
    keeps_channels,
    layer_channels,
    output_axis,
)

# A new order of channels passes through these.
_UNARY = ELEMENTWISE | POOLS
_BINARY = frozenset(("Add", "Mul", "Sub", "Div"))


class Blocked(Exception):
    """This set of tensors cannot take another channel order."""


class TiedTensors:
    """The tensors that share one channel order on one side of a shuffle, and the layers at their border.

    Args:
        graph: where they are.
        shuffle: the Gather on whose other side the set ends.
        start: the first tensor of the set: what the shuffle reads or what it makes.

    Raises:
        Blocked: an operator ties the set to something fixed.
    """

    def __init__(self, graph: Graph, shuffle: NodeProto, start: str) -> None:
        self._graph = graph
        self._shuffle = shuffle
        self.tensors: Set[str] = set()
        self._depthwise: Dict[str, NodeProto] = {}
        self._makers: Dict[str, NodeProto] = {}
        self._readers: Dict[str, NodeProto] = {}
        self._spread(start)

    @property
    def border_groups(self) -> int:
        """Into how many groups the finest layer at the border divides the channels."""
        nodes = [*self._makers.values(), *self._readers.values()]
        return max((layer_channels(self._graph, node)[0] for node in nodes), default=1)

    def takes(self, order: NDArray[Any]) -> bool:
        """Whether the set may be reordered so that old[k] = new[order[k]]."""
        borders: List[Tuple[int, int]] = []
        for node in self._makers.values():
            groups, _, outputs = layer_channels(self._graph, node)
            borders.append((groups, outputs))
        for node in self._readers.values():
            groups, inputs, _ = layer_channels(self._graph, node)
            borders.append((groups, inputs))
        for groups, channels in borders:
            size = channels // groups
            if channels != len(order) or not np.array_equal(order // size, np.arange(channels) // size):
                return False  # the order would leave a group of this layer
        return True

    def reorder(self, order: NDArray[Any]) -> None:
        """Write the order into the weights: new[order[k]] = old[k] for every tensor of the set."""
        inverse = np.argsort(order)  # new[k] = old[inverse[k]]
        numbers = self._graph.numbers
        for node in [*self._depthwise.values(), *self._makers.values()]:
            self._graph.own_number(node, 1, numbers[node.input[1]].take(inverse, output_axis(node)))
            if has_bias(node):
                self._graph.own_number(node, 2, numbers[node.input[2]][inverse])
        for node in self._readers.values():
            weight, axis = numbers[node.input[1]], 1 - output_axis(node)
            groups, inputs, _ = layer_channels(self._graph, node)
            columns = weight.take(inverse, axis) if groups == 1 else _reorder_columns(weight, inverse, groups, inputs)
            self._graph.own_number(node, 1, columns)

    def _spread(self, start: str) -> None:
        waiting: List[str] = [start]
        while waiting:
            tensor = waiting.pop()
            if tensor in self.tensors:
                continue
            if self._graph.is_output(tensor):
                raise Blocked
            self.tensors.add(tensor)
            waiting += self._through_producer(tensor)
            for reader in self._graph.consumers(tensor):
                waiting += self._through_consumer(reader)

    def _through_producer(self, tensor: str) -> List[str]:
        node = self._graph.producer(tensor)
        if node is None:
            raise Blocked  # a model input keeps its order
        if node is self._shuffle:
            return []
        if node.op_type in ("Conv", "Gemm"):
            if self._is_depthwise(node):
                self._depthwise[node.name] = node
                return [node.input[0]]
            self._makers[node.name] = node
            return []
        return self._elementwise_inputs(node)

    def _through_consumer(self, node: NodeProto) -> List[str]:
        if node is self._shuffle:
            return []
        if node.op_type in ("Conv", "Gemm"):
            if self._is_depthwise(node):
                self._depthwise[node.name] = node
                return [node.output[0]]
            self._readers[node.name] = node
            return []
        return [*self._elementwise_inputs(node), node.output[0]]

    def _elementwise_inputs(self, node: NodeProto) -> List[str]:
        if node.op_type in _UNARY:
            others = node.output[1:]  # such as the places of maxima
            if any(self._graph.consumers(name) or self._graph.is_output(name) for name in others):
                raise Blocked
            return [node.input[0]]
        if keeps_channels(self._graph, node):
            return [node.input[0]]
        if node.op_type in _BINARY:
            for name in node.input:
                if name in self._graph.numbers and self._graph.numbers[name].size != 1:
                    raise Blocked
            return [name for name in node.input if name not in self._graph.numbers]
        raise Blocked

    def _is_depthwise(self, node: NodeProto) -> bool:
        if not is_layer(self._graph, node):
            raise Blocked  # its weights are computed, and cannot be reordered here
        return is_depthwise(self._graph, node)


def tied_tensors(graph: Graph, shuffle: NodeProto, start: str) -> Optional[TiedTensors]:
    """The set on one side of a shuffle, or None when it is fixed or wraps around to the other side."""
    try:
        tied = TiedTensors(graph, shuffle, start)
    except Blocked:
        return None
    # Both sides tied together: the order cannot change on one of them alone.
    if shuffle.input[0] in tied.tensors and shuffle.output[0] in tied.tensors:
        return None
    return tied


def _reorder_columns(weight: NDArray[Any], inverse: NDArray[Any], groups: int, inputs: int) -> NDArray[Any]:
    """Reorder a grouped convolution's input channels. `weight` is (out, in/groups, …); groups keep their own."""
    size, out = inputs // groups, weight.shape[0] // groups
    blocks = [
        weight[group * out : (group + 1) * out, inverse[group * size : (group + 1) * size] - group * size]
        for group in range(groups)
    ]
    return np.concatenate(blocks)
