"""An ONNX graph that can be edited: nodes, and numbers as NumPy arrays by name."""

from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.topology import read_topology

OPSET = 13  # what TensorRT 8.2 and ONNX Runtime 1.19 both take
IR_VERSION = 7  # the IR that belongs to opset 13; today's onnx would write a newer one


class Graph:
    """A model under transformation.

    Attributes:
        nodes: in topological order.
        numbers: initializers by name.
        inputs, outputs: the model's own, as ONNX value infos.
    """

    def __init__(
        self,
        nodes: Sequence[NodeProto],
        numbers: Mapping[str, NDArray[Any]],
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> None:
        self.nodes: List[NodeProto] = list(nodes)
        self.numbers: Dict[str, NDArray[Any]] = dict(numbers)
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self._makers: Dict[str, NodeProto] = {}
        self._readers: Dict[str, List[NodeProto]] = {}
        for node in self.nodes:
            self._join(node)

    def _join(self, node: NodeProto) -> None:
        for tensor in node.output:
            self._makers[tensor] = node
        for tensor in set(node.input):
            self._readers.setdefault(tensor, []).append(node)

    def _part(self, node: NodeProto) -> None:
        for tensor in node.output:
            del self._makers[tensor]
        for tensor in set(node.input):
            self._readers[tensor] = [one for one in self._readers[tensor] if one is not node]

    @classmethod
    def parse(
        cls,
        data: bytes,
        *,
        numbers: Mapping[str, NDArray[Any]],
        inputs: Sequence[str],
        open_nodes: Sequence[str] = (),
    ) -> "Graph":
        """Read a model from bytes; `numbers` fill what it leaves open, `inputs` are its real inputs.

        `open_nodes` may read further numbers that the caller fills in after parsing.

        Raises:
            BundleError: no ONNX model, external data, a wrong opset, or a number that nobody supplies.
        """
        model = read_topology(data, OPSET)
        found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        found.update(numbers)
        real = [value for value in model.graph.input if value.name in inputs]
        graph = cls(model.graph.node, found, real, model.graph.output)
        graph._check_complete(frozenset(open_nodes))
        return graph

    def _check_complete(self, open_nodes: FrozenSet[str]) -> None:
        known = set(self.numbers) | {value.name for value in self.inputs}
        for node in self.nodes:
            read = node.input[:1] if node.name in open_nodes else node.input
            for name in read:
                if name and name not in known:
                    raise BundleError(f"the topology's node '{node.name}' reads '{name}', which the weights lack")
            known.update(node.output)
        for value in self.outputs:
            if value.name not in known:
                raise BundleError(f"the topology's output '{value.name}' is made by no node")

    def node(self, name: str) -> NodeProto:
        """The node of that name. Raises `BundleError` when the manifest names one that is not there."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise BundleError(f"the manifest names node '{name}', which the topology lacks: export the bundle again")

    def producer(self, tensor: str) -> Optional[NodeProto]:
        """The node that makes `tensor`, None for inputs and numbers."""
        return self._makers.get(tensor)

    def consumers(self, tensor: str) -> List[NodeProto]:
        """The nodes that read `tensor`."""
        return list(self._readers.get(tensor, ()))

    def is_output(self, tensor: str) -> bool:
        """Whether the model returns `tensor`."""
        return any(value.name == tensor for value in self.outputs)

    def own_number(self, node: NodeProto, position: int, value: NDArray[Any]) -> None:
        """Give `node` a number of its own at input `position`, leaving other readers of the old one alone."""
        name = f"{node.name}.{position}"
        while any(reader is not node for reader in self._readers.get(name, ())):
            name += "."  # another node's number has this very name
        self.numbers[name] = value
        self.connect(node, position, name)

    def connect(self, node: NodeProto, position: int, tensor: str) -> None:
        """Let `node` read `tensor` at input `position`."""
        self._part(node)
        while len(node.input) <= position:
            node.input.append("")
        node.input[position] = tensor
        self._join(node)

    def replace(self, node: NodeProto, by: Sequence[NodeProto]) -> None:
        """Put other nodes in a node's place."""
        at = self._place(node)
        self._part(node)
        self.nodes[at : at + 1] = list(by)
        for one in by:
            self._join(one)

    def _place(self, node: NodeProto) -> int:
        return next(at for at, one in enumerate(self.nodes) if one is node)  # `index` would compare contents

    def bypass(self, node: NodeProto) -> None:
        """Remove a node of one input and one output, joining its readers to what it read."""
        source, target = node.input[0], node.output[0]
        del self.nodes[self._place(node)]
        self._part(node)
        if self.is_output(target):  # the model's output keeps its name: rename at the source instead
            source, target = target, source
            made_by = self.producer(target)
            if made_by is None:
                raise BundleError(f"node '{node.name}' joins an input straight to an output")
            self._part(made_by)
            made_by.output[list(made_by.output).index(target)] = source
            self._join(made_by)
        for reader in self.consumers(target):
            self._part(reader)
            for position, name in enumerate(reader.input):
                if name == target:
                    reader.input[position] = source
            self._join(reader)

    def shapes(self) -> Dict[str, Tuple[int, ...]]:
        """The shape of every tensor that follows from the inputs' shapes, for a batch of one; unknown sizes are 0."""
        inputs = []
        for value in self.inputs:
            one = onnx.ValueInfoProto()
            one.CopyFrom(value)
            if one.type.tensor_type.shape.dim:
                one.type.tensor_type.shape.dim[0].dim_value = 1
            inputs.append(one)
        small = {name: value for name, value in self.read_numbers().items() if value.dtype == np.int64}
        inputs += [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in self.read_numbers().items()
            if name not in small
        ]
        # Sizes to reshape to are read by the inference; weights only need to have a shape.
        numbers = [numpy_helper.from_array(value, name) for name, value in small.items()]
        graph = helper.make_graph(self.nodes, "shapes", inputs, self.outputs, initializer=numbers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        inferred = onnx.shape_inference.infer_shapes(model).graph
        return {
            value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
            for value in (*inferred.value_info, *inferred.input, *inferred.output)
        }

    def one_row(self, random: np.random.Generator) -> Dict[str, NDArray[Any]]:
        """Random values for every input, a batch of one. Raises `ValueError` for one whose other sizes are open."""
        values: Dict[str, NDArray[Any]] = {}
        for value in self.inputs:
            kind = value.type.tensor_type
            shape = (1, *[size.dim_value for size in kind.shape.dim][1:])
            if not all(shape):
                raise ValueError(f"input '{value.name}' has no fixed size: {shape}")
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            values[value.name] = (random.normal(size=shape) * (1 if dtype.kind == "f" else 50)).astype(dtype)
        return values

    def read_numbers(self) -> Dict[str, NDArray[Any]]:
        """The numbers that some node reads, by name."""
        return {name: value for name, value in self.numbers.items() if self._readers.get(name)}

    def to_bytes(self) -> bytes:
        """The model as ONNX bytes, opset 13, with only the numbers that are read."""
        initializers = [
            numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in self.read_numbers().items()
        ]
        data: bytes = self.to_model(initializers).SerializeToString()
        return data

    def to_model(self, initializers: Sequence[onnx.TensorProto]) -> onnx.ModelProto:
        """The model with these as its numbers, opset 13."""
        graph = helper.make_graph(self.nodes, "wenet", self.inputs, self.outputs, initializer=initializers)
        model = helper.make_model(graph, producer_name="wenet-runtime", opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        return model


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or `default` when it has none of that name."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Set a node's attribute, replacing an older value."""
    kept: List[AttributeProto] = [entry for entry in node.attribute if entry.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(helper.make_attribute(name, value))
