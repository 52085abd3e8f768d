"""Cuts a supernet into segments: weight-enabled layers whose best emission depends on one another.

Layers joined by a shuffle, following one another directly, or added up hand each other channel orders and
memory layouts. A segment is a small supernet of its own, so it is lowered by the same passes as the whole.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from wenet_runtime.bundle import TensorSpec
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import Supernet, lower

MOST_LAYERS = 3  # a longer chain is cut where no shuffle joins it
BEFORE, AFTER = "segment.before", "segment.after"


@dataclass(frozen=True)
class Segment:
    """A part of a supernet that is tuned as one.

    Attributes:
        supernet: the part, with one input and one output.
        shape: of its input for one image, without the batch.
        units: its layers' names, those joined by shuffles together.
        positions: at how many places of the image a layer is computed, by name.
        signature: equal for segments that cost the same.
    """

    supernet: Supernet
    shape: Tuple[int, ...]
    units: Tuple[Tuple[str, ...], ...]
    positions: Mapping[str, int]
    signature: str


@dataclass(frozen=True)
class _Block:
    """Units of layers in order, and every node from the tensor the first reads to the one the last makes."""

    units: List[List[NodeProto]]
    nodes: List[NodeProto]

    @property
    def source(self) -> str:
        return str(self.nodes[0].input[0])

    @property
    def target(self) -> str:
        return str(self.nodes[-1].output[0])


def segments(supernet: Supernet) -> Tuple[Segment, ...]:
    """Every segment of a supernet. Layers whose shapes cannot be inferred are left out, and follow the rule."""
    parts = _Parts(supernet)
    found = (parts.segment(block) for block in parts.blocks())
    return tuple(segment for segment in found if segment is not None)


class _Parts:
    """The full network, to be cut."""

    def __init__(self, supernet: Supernet) -> None:
        self._supernet = supernet
        self._graph = lower(supernet, {layer.name: 1 for layer in supernet.layers}, fold=False)
        self._shapes = self._graph.shapes()
        self._layers = {layer.node: layer for layer in supernet.layers}
        self._shuffles = {shuffle.node: shuffle.groups for shuffle in supernet.shuffles}

    def blocks(self) -> List[_Block]:
        """Every layer in one block: a chain, with the sum behind it; two chains of one sum together."""
        blocks: List[_Block] = []
        for chain in self._chains():
            block = _Block(chain, self._nodes(chain))
            for at, other in enumerate(blocks):
                total = self._sum_of(other.target, block.target) if other.source == block.source else None
                if total is not None:
                    nodes = self._with_tail([*other.nodes, *block.nodes, total])
                    blocks[at] = _Block(other.units + block.units, nodes)
                    break
            else:
                total = self._sum_of(block.source, block.target)
                blocks.append(block if total is None else _Block(chain, self._with_tail([*block.nodes, total])))
        return blocks

    def segment(self, block: _Block) -> Optional[Segment]:
        """The block as a supernet of its own, between two layers that keep the engine's preferred layout."""
        shape, made = (self._shapes.get(name, ()) for name in (block.source, block.target))
        if len(shape) not in (2, 4) or len(made) != len(shape) or not all(shape) or not all(made):
            return None
        border: Dict[str, NDArray[Any]] = {}
        nodes = block.nodes
        if len(shape) == 4:
            ends = ((BEFORE, shape[1]), (AFTER, made[1]))
            border = {f"{name}.weight": np.ones((channels, 1, 1, 1), np.float32) for name, channels in ends}
            nodes = _wrapped(block, shape[1], made[1])
        names = {node.name for node in nodes}
        supernet = self._supernet
        part = Supernet(
            topology=self._topology(nodes, block.source, shape, border),
            inputs=(TensorSpec(block.source, "FP32", (-1, *shape[1:])),),
            # In the order in which they run, whatever the manifest's: figures are kept by it.
            layers=tuple(self._layers[node.name] for node in nodes if node.name in self._layers),
            norms=tuple(norm for norm in supernet.norms if norm.node in names),
            shuffles=tuple(shuffle for shuffle in supernet.shuffles if shuffle.node in names),
            weights={**supernet.weights, **border},
        )
        units = tuple(tuple(self._layers[node.name].name for node in unit) for unit in block.units)
        sizes = {node.name: self._shapes.get(node.output[0], ())[2:] for node in block.nodes}
        positions = {layer.name: int(np.prod(sizes[layer.node], dtype=int)) for layer in part.layers}
        return Segment(part, shape[1:], units, positions, self._signature(block.nodes, shape))

    def _chains(self) -> List[List[List[NodeProto]]]:
        """Layers that follow one another in units: those joined by shuffles, which must not be parted."""
        chains: List[List[List[NodeProto]]] = []
        ends: Dict[str, List[List[NodeProto]]] = {}  # the chain that ends with a node
        for node in self._graph.nodes:
            if node.name not in self._layers:
                continue
            feeder, between = self._between(node)
            chain = None
            if feeder is not None and self._rank(feeder) == self._rank(node):
                chain = ends.pop(feeder.name, None)
            if chain is None:
                chain = [[node]]
                chains.append(chain)
            elif any(one.name in self._shuffles for one in between):
                chain[-1].append(node)
            else:
                chain.append([node])
            ends[node.name] = chain
        return [part for chain in chains for part in _cut(chain)]

    def _between(self, reader: NodeProto) -> Tuple[Optional[NodeProto], List[NodeProto]]:
        """The layer that alone feeds `reader`, and the nodes between, which nothing else reads."""
        waiting, inside, feeders = [reader.input[0]], set(), {}
        while waiting:
            maker = self._graph.producer(waiting.pop())
            if maker is None:
                return None, []
            if maker.name in self._layers:
                feeders[maker.name] = maker
            elif maker.name not in inside:
                inside.add(maker.name)
                waiting += self._tensors(maker)
        if len(feeders) != 1:
            return None, []
        feeder = next(iter(feeders.values()))
        between = [node for node in self._graph.nodes if node.name in inside]
        made = [name for node in (feeder, *between) for name in node.output]
        if any(one.name not in {*inside, reader.name} for name in made for one in self._graph.consumers(name)):
            return None, []
        return feeder, between

    def _rank(self, node: NodeProto) -> int:
        """2 for a linear layer, 4 for a convolution: a segment lies in one kind of tensor."""
        return len(self._shapes.get(node.output[0], ()))

    def _nodes(self, chain: List[List[NodeProto]]) -> List[NodeProto]:
        first, *others = [node for unit in chain for node in unit]
        nodes = [first]
        for node in others:
            nodes += [*self._between(node)[1], node]
        return self._with_tail(nodes)

    def _with_tail(self, nodes: List[NodeProto]) -> List[NodeProto]:
        """The nodes and the batch norm and activation behind them, which engines fuse."""
        readers = self._graph.consumers(nodes[-1].output[0])
        while len(readers) == 1 and len(self._tensors(readers[0])) == 1:
            if readers[0].op_type not in ("BatchNormalization", "Relu", "Clip"):
                break
            nodes = [*nodes, readers[0]]
            readers = self._graph.consumers(nodes[-1].output[0])
        return nodes

    def _sum_of(self, one: str, other: str) -> Optional[NodeProto]:
        """The Add of exactly these two tensors."""
        sums = (node for node in self._graph.consumers(other) if node.op_type == "Add")
        return next((node for node in sums if set(node.input) == {one, other}), None)

    def _tensors(self, node: NodeProto) -> List[str]:
        """What a node reads besides numbers."""
        return [name for name in node.input if name and name not in self._graph.numbers]

    def _topology(
        self, nodes: Sequence[NodeProto], source: str, shape: Tuple[int, ...], border: Mapping[str, NDArray[Any]]
    ) -> bytes:
        read = {name for node in nodes for name in node.input} - set(border)
        own = self._supernet.weights
        small = {name: value for name, value in self._graph.numbers.items() if name in read and name not in own}
        given = helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch", *shape[1:]])
        made = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
        return Graph(nodes, small, [given], [made]).to_bytes()

    def _signature(self, nodes: Sequence[NodeProto], shape: Tuple[int, ...]) -> str:
        """Operators, attributes and shapes, without names."""
        rows: List[Any] = [list(shape)]
        places = {nodes[0].input[0]: 0}
        for number, node in enumerate(nodes, start=1):
            attributes = sorted(entry.SerializeToString().hex() for entry in node.attribute)
            sizes = [list(self._graph.numbers[name].shape) for name in node.input if name in self._graph.numbers]
            kind = [node.op_type, node.name in self._layers, self._shuffles.get(node.name, 0)]
            rows.append([kind, attributes, sizes, [places.get(name, -1) for name in self._tensors(node)]])
            places.update(dict.fromkeys(node.output, number))
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _cut(chain: List[List[NodeProto]]) -> List[List[List[NodeProto]]]:
    """Cut a chain between units so that no part has more than `MOST_LAYERS` layers, if its units allow it."""
    parts: List[List[List[NodeProto]]] = []
    for unit in chain:
        if parts and sum(map(len, parts[-1])) + len(unit) <= MOST_LAYERS:
            parts[-1].append(unit)
        else:
            parts.append([unit])
    return parts


def _wrapped(block: _Block, inputs: int, outputs: int) -> List[NodeProto]:
    """The nodes between two 1×1 depthwise convolutions: these cost the same whatever stands between, and hand
    over tensors in the layout that the rest of a network would.
    """
    copies: List[NodeProto] = []
    for node in block.nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(copy.input):
            if name == block.source:
                copy.input[position] = BEFORE
        copies.append(copy)
    first, last = (
        helper.make_node("Conv", [read, f"{name}.weight"], [name], name=name, group=channels, kernel_shape=[1, 1])
        for read, name, channels in ((block.source, BEFORE, inputs), (block.target, AFTER, outputs))
    )
    return [first, *copies, last]
