"""Writes a float graph in fp16: numbers and activations of half the size, with float inputs and outputs.

For engines with fp16 kernels (TensorRT, ONNX Runtime on ARM); others compute in float on rounded numbers.
bf16 is no pass: it is a precision that an engine computes float models in, see `engines.openvino`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.graph import Graph, attribute, set_attribute


def to_half(graph: Graph) -> None:
    """Write every float number and activation in fp16, in place, and cast at the model's border.

    Every operator that the networks here consist of has an fp16 form in opset 13, so none stays in float.

    Raises:
        BundleError: a number is too large for fp16.
    """
    for name, value in graph.read_numbers().items():
        if value.dtype == np.float32:
            graph.numbers[name] = _half(name, value)
    for node in graph.nodes:
        _make_half(node)
    for value in graph.inputs:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            _cast_input(graph, value.name)
    for value in graph.outputs:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            _cast_output(graph, value.name)


def _half(name: str, value: NDArray[Any]) -> NDArray[Any]:
    limit = float(np.finfo(np.float16).max)
    finite = np.abs(value[np.isfinite(value)])
    if finite.size and float(finite.max()) > limit:
        raise BundleError(
            f"number '{name}' reaches {finite.max():g} and fp16 ends at {limit:g}: keep this mode in fp32"
        )
    return value.astype(np.float16)


def _make_half(node: NodeProto) -> None:
    """Let a node that says which type it makes say fp16."""
    if node.op_type == "Constant":
        tensor = attribute(node, "value", None)
        if tensor is not None and tensor.data_type == TensorProto.FLOAT:
            set_attribute(node, "value", numpy_helper.from_array(_half(node.output[0], numpy_helper.to_array(tensor))))
    elif node.op_type == "Cast" and attribute(node, "to", None) == TensorProto.FLOAT:
        set_attribute(node, "to", TensorProto.FLOAT16)


def _cast_input(graph: Graph, name: str) -> None:
    readers = graph.consumers(name)
    if not readers:
        return
    half = f"{name}.half"
    cast = helper.make_node("Cast", [name], [half], name=half, to=TensorProto.FLOAT16)
    first = next(node for node in graph.nodes if name in node.input)
    graph.replace(first, [cast, first])
    for reader in readers:
        for position, tensor in enumerate(reader.input):
            if tensor == name:
                graph.connect(reader, position, half)


def _cast_output(graph: Graph, name: str) -> None:
    """The output keeps its name; what made it makes its half, which its other readers read."""
    maker = graph.producer(name)
    if maker is None:
        raise BundleError(f"output '{name}' is made by no node: export the bundle again")
    readers, half = graph.consumers(name), f"{name}.half"
    made = NodeProto()
    made.CopyFrom(maker)
    made.output[list(maker.output).index(name)] = half
    graph.replace(maker, [made, helper.make_node("Cast", [half], [name], name=f"{name}.float", to=TensorProto.FLOAT)])
    for reader in readers:
        for position, tensor in enumerate(reader.input):
            if tensor == name:
                graph.connect(reader, position, half)
