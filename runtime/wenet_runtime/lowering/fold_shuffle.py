"""Removes a channel shuffle by writing it into the weights around it, or reduces it to moving blocks.

A shuffle beside a dense layer disappears into that layer's rows or columns. Between two grouped layers
the order inside each producer group and inside each consumer group is free, so only blocks of
(producer group, consumer group) remain to be moved; their sizes are counted from the permutation.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from wenet_runtime.lowering.graph import Graph, attribute
from wenet_runtime.lowering.reorder import tied_tensors


def fold_shuffle(graph: Graph, shuffle: NodeProto) -> bool:
    """Fold one shuffle (a Gather on axis 1 with constant indices) if a neighbour can take it.

    Tries the side that feeds it, then the side that reads it.

    Returns:
        Whether the Gather is gone. If not, the graph is unchanged.
    """
    if graph.is_output(shuffle.output[0]):
        return False
    order = graph.numbers[shuffle.input[1]]  # shuffled[k] = input[order[k]]
    for start, new_order in ((shuffle.input[0], np.argsort(order)), (shuffle.output[0], order)):
        tied = tied_tensors(graph, shuffle, start)
        if tied is not None and tied.takes(new_order):
            tied.reorder(new_order)
            graph.bypass(shuffle)
            return True
    return False


def reduce_shuffles(graph: Graph, whole_blocks: int = 1) -> int:
    """Reduce every shuffle that did not fold, where an engine gains by it; see `reduce_shuffle`.

    Returns:
        How many were reduced.
    """
    shuffles = [node for node in graph.nodes if node.op_type == "Gather" and _permutes_channels(graph, node)]
    return sum(reduce_shuffle(graph, shuffle, whole_blocks) for shuffle in shuffles)


def _permutes_channels(graph: Graph, node: NodeProto) -> bool:
    order = graph.numbers.get(node.input[1])
    if order is None or order.ndim != 1 or attribute(node, "axis", 0) != 1:
        return False
    return np.array_equal(np.sort(order), np.arange(len(order)))


def reduce_shuffle(graph: Graph, shuffle: NodeProto, whole_blocks: int = 1) -> bool:
    """Sort a shuffle's channels on both sides so that it only moves whole (producer, consumer) blocks.

    Args:
        graph: changed in place.
        shuffle: one that did not fold.
        whole_blocks: reduce only if all blocks then begin and end at multiples of this many channels;
            an engine that knows the paper's shuffle itself is better left with it otherwise.

    Returns:
        Whether the shuffle now moves larger pieces. If not, the graph is unchanged.
    """
    if graph.is_output(shuffle.output[0]):
        return False
    order = graph.numbers[shuffle.input[1]]
    made = tied_tensors(graph, shuffle, shuffle.input[0])
    read = tied_tensors(graph, shuffle, shuffle.output[0])
    if made is None or read is None:
        return False
    channels = len(order)
    if channels % made.border_groups or channels % read.border_groups:
        return False
    made_order, read_order, blocks = block_orders(order, made.border_groups, read.border_groups)
    cuts = np.flatnonzero(np.diff(blocks) != 1) + 1
    if (
        (cuts % whole_blocks).any()
        or len(cuts) + 1 >= pieces(order)
        or not made.takes(made_order)
        or not read.takes(read_order)
    ):
        return False
    made.reorder(made_order)
    read.reorder(read_order)
    graph.own_number(shuffle, 1, blocks)
    return True


def block_orders(
    order: NDArray[Any], producers: int, consumers: int
) -> "tuple[NDArray[Any], NDArray[Any], NDArray[Any]]":
    """Sort both sides of a permutation within their groups.

    Args:
        order: shuffled[k] = input[order[k]].
        producers: groups of equal size among the inputs.
        consumers: groups of equal size among the shuffled.

    Returns:
        For the inputs and the shuffled, where each channel goes (old[k] = new[result[k]]), and the
        permutation that is left between the sorted sides: at most producers × consumers runs.
    """
    channels = len(order)
    goes_to = np.argsort(order)  # position of each input channel in the shuffled
    consumer_of = goes_to // (channels // consumers)
    producer = np.arange(channels) // (channels // producers)
    # Both sides are sorted by where a channel comes from, so that a block's inside keeps its order.
    sorted_inputs = np.lexsort((np.arange(channels), consumer_of, producer))
    sorted_shuffled = np.lexsort((order, np.arange(channels) // (channels // consumers)))
    input_place = np.argsort(sorted_inputs)
    blocks = input_place[order[sorted_shuffled]]
    return input_place, np.argsort(sorted_shuffled), blocks.astype(np.int64)


def pieces(order: NDArray[Any]) -> int:
    """Into how many runs of consecutive channels a permutation cuts its input."""
    return int(np.count_nonzero(np.diff(order) != 1)) + 1
