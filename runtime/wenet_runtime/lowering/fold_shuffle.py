"""Removes a channel shuffle by writing it into the weights around it, wherever that is exact.

The set rule: take every tensor tied to the shuffle's channel order (through activations, pooling,
depthwise convolutions, sums and products). If every other operator on the border of that set is a
convolution that is dense, or whose groups the permutation does not leave, the order can live in its
rows or columns, and the Gather is gone.
"""

from typing import Any, Dict, List, Optional, Set

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from wenet_runtime.lowering.graph import Graph, conv_groups

# Operators that treat every channel alike, so that a new order of channels passes through them.
_UNARY = frozenset(
    ("Relu", "LeakyRelu", "Elu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Erf", "Sqrt", "Abs")
    + ("Neg", "Exp", "Identity", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
)
_BINARY = frozenset(("Add", "Mul", "Sub", "Div"))


class _Blocked(Exception):
    """This set of tensors cannot take another channel order."""


class _Plan:
    """The tensors that change order, and the convolutions whose rows or columns follow."""

    def __init__(self, graph: Graph, shuffle: NodeProto, order: NDArray[Any]) -> None:
        self.graph = graph
        self.shuffle = shuffle
        self.order = order  # old[k] = new[order[k]] for every tensor of the set
        self.tensors: Set[str] = set()
        self.rows: Dict[str, NodeProto] = {}
        self.columns: Dict[str, NodeProto] = {}

    def spread(self, start: str) -> None:
        """Collect the set from one tensor. Raises `_Blocked` where an operator ties it to something fixed."""
        waiting: List[str] = [start]
        while waiting:
            tensor = waiting.pop()
            if tensor in self.tensors:
                continue
            if self.graph.is_output(tensor):
                raise _Blocked
            self.tensors.add(tensor)
            waiting += self._through_producer(tensor)
            for reader in self.graph.consumers(tensor):
                waiting += self._through_consumer(reader, tensor)

    def _through_producer(self, tensor: str) -> List[str]:
        node = self.graph.producer(tensor)
        if node is None:
            raise _Blocked  # a model input keeps its order
        if node is self.shuffle:
            return []  # the shuffle goes: its output takes its input's order
        if node.op_type == "Conv":
            if any(name and name not in self.graph.numbers for name in node.input[1:]):
                raise _Blocked
            if self._is_depthwise(node):
                self.rows[node.name] = node
                return [node.input[0]]
            self._check_border(node, side="out")
            self.rows[node.name] = node
            return []
        return self._elementwise_inputs(node)

    def _through_consumer(self, node: NodeProto, tensor: str) -> List[str]:
        if node is self.shuffle:
            return []
        if node.op_type == "Conv":
            if any(name and name not in self.graph.numbers for name in node.input[1:]):
                raise _Blocked  # its weights are computed, and cannot be reordered here
            if self._is_depthwise(node):
                self.rows[node.name] = node
                return [node.output[0]]
            self._check_border(node, side="in")
            self.columns[node.name] = node
            return []
        return [*self._elementwise_inputs(node), node.output[0]]

    def _elementwise_inputs(self, node: NodeProto) -> List[str]:
        if node.op_type in _UNARY:
            if len(node.output) > 1 and any(self.graph.consumers(name) for name in node.output[1:]):
                raise _Blocked
            return [node.input[0]]
        if node.op_type in _BINARY:
            for name in node.input:
                if name in self.graph.numbers and self.graph.numbers[name].size != 1:
                    raise _Blocked
            return [name for name in node.input if name not in self.graph.numbers]
        raise _Blocked

    def _is_depthwise(self, node: NodeProto) -> bool:
        groups, inputs, outputs = conv_groups(self.graph, node)
        return groups == inputs == outputs and groups > 1

    def _check_border(self, node: NodeProto, *, side: str) -> None:
        groups, inputs, outputs = conv_groups(self.graph, node)
        channels = outputs if side == "out" else inputs
        if channels != len(self.order):
            raise _Blocked
        size = channels // groups
        if not np.array_equal(self.order // size, np.arange(channels) // size):
            raise _Blocked  # the order would leave a group of this convolution

    def apply(self) -> None:
        """Write the order into the weights: new[order[k]] = old[k]."""
        inverse = np.argsort(self.order)  # new[k] = old[inverse[k]]
        for node in self.rows.values():
            self.graph.own_number(node, 1, self.graph.numbers[node.input[1]][inverse])
            if len(node.input) > 2 and node.input[2]:
                self.graph.own_number(node, 2, self.graph.numbers[node.input[2]][inverse])
        for node in self.columns.values():
            groups, inputs, _ = conv_groups(self.graph, node)
            self.graph.own_number(node, 1, _reorder_columns(self.graph.numbers[node.input[1]], inverse, groups, inputs))
        self.graph.bypass(self.shuffle)


def _reorder_columns(weight: NDArray[Any], inverse: NDArray[Any], groups: int, inputs: int) -> NDArray[Any]:
    """Reorder a convolution's input channels. `weight` is (out, in/groups, …); groups keep their own."""
    if groups == 1:
        return weight[:, inverse]
    size, out = inputs // groups, weight.shape[0] // groups
    blocks = [
        weight[group * out : (group + 1) * out, inverse[group * size : (group + 1) * size] - group * size]
        for group in range(groups)
    ]
    return np.concatenate(blocks)


def fold_shuffle(graph: Graph, shuffle: NodeProto) -> bool:
    """Fold one shuffle (a Gather on axis 1 with constant indices) if a neighbour can take it.

    Tries the side that feeds it, then the side that reads it.

    Returns:
        Whether the Gather is gone. If not, the graph is unchanged.
    """
    if graph.is_output(shuffle.output[0]):
        return False
    order = graph.numbers[shuffle.input[1]]  # shuffled[k] = input[order[k]]
    before = _plan(graph, shuffle, shuffle.input[0], np.argsort(order))
    plan = before if before is not None else _plan(graph, shuffle, shuffle.output[0], order)
    if plan is None:
        return False
    plan.apply()
    return True


def _plan(graph: Graph, shuffle: NodeProto, start: str, order: NDArray[Any]) -> Optional[_Plan]:
    plan = _Plan(graph, shuffle, order)
    try:
        plan.spread(start)
    except _Blocked:
        return None
    # A set that wraps around the shuffle (both its sides tied together) cannot change on one side only.
    if shuffle.input[0] in plan.tensors and shuffle.output[0] in plan.tensors:
        return None
    return plan
