"""Fits what is left of shuffles to ONNX Runtime's blocked layout.

ONNX Runtime's CPU provider runs convolutions on channels in blocks (its domain `com.microsoft.nchwc`): a
tensor of C channels lies in memory as (C / block, height × width, block). It converts back for every
operator that does not know the blocks, a shuffle's Gather among them. Two shuffles need no such detour:

- one that moves whole blocks: a block is as many consecutive rows of the tensor before it as after it;
- the paper's shuffle in as many groups as a block has channels, followed by the conversion into blocks:
  both together transpose a matrix of (groups, C / groups × height × width), which one operator does.
"""

from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from wenet_runtime.lowering.graph import attribute


class _Model:
    """An optimised model under change."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.numbers = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: Dict[str, List[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.instead: Dict[str, List[NodeProto]] = {}  # by the name of a Gather's output
        self.gone: List[NodeProto] = []

    def rename(self, old: str, new: str) -> None:
        """Let every reader of `old` read `new`."""
        for node in self.readers.pop(old, []):
            for position, name in enumerate(node.input):
                if name == old:
                    node.input[position] = new
            self.readers.setdefault(new, []).append(node)

    def write(self) -> None:
        """Put the changes into the graph, in topological order, without conversions that nothing reads."""
        nodes: List[NodeProto] = []
        for node in self.graph.node:
            if not any(node is one for one in self.gone):
                nodes += self.instead.get(node.output[0], [node])
        read = {name for node in nodes for name in node.input} | self.outputs
        kept = [node for node in nodes if node.op_type != "ReorderOutput" or node.output[0] in read]
        copies = []
        for node in kept:  # clearing the graph frees its own nodes
            copy = NodeProto()
            copy.CopyFrom(node)
            copies.append(copy)
        del self.graph.node[:]
        self.graph.node.extend(copies)


def fit_shuffles(model: onnx.ModelProto, block: int, shapes: Mapping[str, Sequence[int]]) -> int:
    """Free shuffles from the conversions around them, in a model that ONNX Runtime optimised.

    Args:
        model: the optimised model; changed in place.
        block: channels of one block on this processor, 8 or 16.
        shapes: of the tensors that shuffles read, as the model had them before it was optimised; a size
            that is not known is 0. The batch stays free whatever it says of it.

    Returns:
        How many shuffles were changed.
    """
    state = _Model(model.graph)
    gathers = [node for node in model.graph.node if node.op_type == "Gather" and node.input[1] in state.numbers]
    changed = 0
    for gather in gathers:
        conversions = _conversions_after(state, gather)
        if conversions is None:
            continue
        order = numpy_helper.to_array(state.numbers[gather.input[1]])
        maker = state.makers.get(gather.input[0])
        blocked = maker is not None and maker.op_type == "ReorderOutput" and not attribute(maker, "channels_last", 0)
        if moves_blocks(order, block) and maker is not None and blocked:
            gather.input[0] = maker.input[0]
        elif shuffles_into_blocks(order, block) and _is_image(shape := shapes.get(gather.input[0], ()), len(order)):
            _transpose(state, gather, block, shape)
        else:
            continue
        for conversion in conversions:
            state.rename(conversion.output[0], gather.output[0])
        state.gone += conversions
        changed += 1
    state.write()
    return changed


def moves_blocks(order: NDArray[Any], block: int) -> bool:
    """Whether a permutation of channels moves whole aligned blocks."""
    if order.ndim != 1 or len(order) % block or order.min() < 0:  # from the end, which may be padding here
        return False
    blocks = order.reshape(-1, block)
    return not (blocks[:, 0] % block).any() and bool((blocks - blocks[:, :1] == np.arange(block)).all())


def shuffles_into_blocks(order: NDArray[Any], block: int) -> bool:
    """Whether a permutation is the paper's shuffle in `block` groups."""
    if order.ndim != 1 or len(order) % block:
        return False
    return np.array_equal(order, np.arange(len(order)).reshape(block, -1).T.reshape(-1))


def _is_image(shape: Sequence[int], channels: int) -> bool:
    return len(shape) == 4 and shape[1] == channels and all(shape[2:])


def _conversions_after(state: _Model, gather: NodeProto) -> Optional[List[NodeProto]]:
    """The conversions into blocks that read a shuffle on axis 1, if nothing else reads it."""
    readers = list(state.readers.get(gather.output[0], ()))
    if attribute(gather, "axis", 0) != 1 or gather.output[0] in state.outputs or not readers:
        return None
    if any(one.op_type != "ReorderInput" or attribute(one, "channels_last", 0) for one in readers):
        return None
    return readers


def _transpose(state: _Model, gather: NodeProto, block: int, shape: Sequence[int]) -> None:
    """Put a transposition in a shuffle's place. Its result lies in blocks, though its shape does not say so."""
    source, result = gather.input[0], gather.output[0]
    matrix, image = f"{result}.matrix", f"{result}.image"
    for name, sizes in ((matrix, (0, block, -1)), (image, (0, *shape[1:]))):
        state.graph.initializer.append(numpy_helper.from_array(np.array(sizes, dtype=np.int64), name))
    state.instead[result] = [
        helper.make_node("Reshape", [source, matrix], [f"{result}.rows"], name=f"{gather.name}.rows"),
        helper.make_node(
            "Transpose", [f"{result}.rows"], [f"{result}.columns"], name=f"{gather.name}.transpose", perm=[0, 2, 1]
        ),
        helper.make_node("Reshape", [f"{result}.columns", image], [result], name=gather.name),
    ]
