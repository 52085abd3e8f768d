"""A bundle's topology as it is read: an ONNX model with all its numbers inside and a name for every node."""

from typing import Iterator

import onnx
from google.protobuf.message import DecodeError

from wenet_runtime.errors import BundleError


def read_topology(data: bytes, opset: int) -> onnx.ModelProto:
    """Read an ONNX model of this opset; nodes without a name get one.

    Raises:
        BundleError: no ONNX model, external data, another opset or domain, or two nodes of one name.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise BundleError(f"the topology is no ONNX model ({error}): export the bundle again") from None
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("", opsets.get("ai.onnx")) != opset or len(opsets) != 1:
        raise BundleError(f"the topology uses opsets {opsets}, wanted {opset} of the default domain only")
    for node in _nodes(model.graph):
        if node.domain not in ("", "ai.onnx"):  # an operator of somebody's library: nothing here would load that
            raise BundleError(f"the topology's '{node.name or node.op_type}' is of the domain '{node.domain}': refused")
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise BundleError(f"the topology's '{tensor.name}' is external data: refused")
    _name_nodes(model.graph)
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor a graph holds: initializers, constants, and those of its branches and loops."""
    yield from graph.initializer
    for node in graph.node:
        for entry in node.attribute:
            yield from (entry.t, *entry.tensors)
            for inner in (entry.g, *entry.graphs):
                yield from _tensors(inner)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of branches and loops too."""
    for node in graph.node:
        yield node
        for entry in node.attribute:
            for inner in (entry.g, *entry.graphs):
                yield from _nodes(inner)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Passes know nodes by name, so every node has one of its own."""
    taken = set()
    for number, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}#{number}"
        if node.name in taken:
            raise BundleError(f"the topology has two nodes named '{node.name}': export the bundle again")
        taken.add(node.name)
