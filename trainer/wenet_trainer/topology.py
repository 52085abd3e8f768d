"""A torch supernet as the runtime's `Supernet`: its graph without numbers, and every number by name.

The graph is taken from torch's TorchScript exporter as topology only. The exporter may merge equal
tensors and rename others, so it is fed a copy whose every tensor is distinct: the mapping from nodes
to layers then follows from tensor names alone.
"""

import copy
import io
import logging
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from wenet_runtime.bundle import Layer, Norm, NormPattern, Shuffle, TensorSpec
from wenet_runtime.materialize import Supernet
from wenet_trainer.errors import ExportError
from wenet_trainer.layers import WeightEnabledConv2d
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import fixed_norms, set_active, shuffles, switchable_norms, weight_enabled

OPSET = 13
IR_VERSION = 7
INPUT, OUTPUT = "image", "logits"


def describe(net: nn.Module, input_shape: tuple[int, int, int]) -> Supernet:
    """The supernet as the runtime reads it; the network itself is left as it is.

    Args:
        net: one image batch in, one (N, classes) tensor out.
        input_shape: (C, H, W).

    Raises:
        ExportError: the network cannot be exported, or a layer has no node of its own in the graph.
    """
    graph_net = _distinct_copy(net)
    model = onnx.load_from_string(_torchscript(graph_net, input_shape))
    _write_products_as_gemm(model)
    numbers = _numbers(net)
    readers = _readers(model)
    layers = tuple(_layer(name, module, readers) for name, module in weight_enabled(net).items())
    names = {id(module): name for name, module in net.named_modules()}
    norms = tuple(
        Norm(
            node=_node(readers, f"{name}.weight", "BatchNormalization"),
            layer=names[id(switch.fed_by)],
            eps=switch.eps,
            patterns={level: _pattern(names[id(norm)]) for level, norm in switch.norms()},
        )
        for name, switch in switchable_norms(net).items()
    ) + tuple(
        Norm(_node(readers, f"{name}.weight", "BatchNormalization"), None, norm.eps, {1: _pattern(name)})
        for name, norm in fixed_norms(net).items()
        if f"{name}.weight" in readers  # a head that only training runs has norms, too
    )
    mixes = tuple(
        Shuffle(_node(readers, f"{name}.permutation", "Gather"), shuffle.channels, shuffle.groups)
        for name, shuffle in shuffles(net).items()
    )
    return Supernet(
        topology=_without_numbers(model),
        inputs=(TensorSpec(INPUT, "FP32", (-1, *input_shape)),),
        layers=layers,
        norms=norms,
        shuffles=mixes,
        weights=numbers,
    )


def _distinct_copy(net: nn.Module) -> nn.Module:
    """A copy at full width in evaluation mode, with no two equal tensors in it."""
    net = copy.deepcopy(net).cpu().eval()
    set_active(net, SearchSpace.of(net).full())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    for shuffle in shuffles(net).values():
        # Persistent here, because the exporter names only what a state dict has.
        order = torch.randperm(shuffle.channels, generator=generator)
        shuffle.register_buffer("permutation", order, persistent=True)
    return net


def _torchscript(net: nn.Module, input_shape: tuple[int, int, int]) -> bytes:
    buffer: Any = io.BytesIO()  # works, though torch declares paths only
    with warnings.catch_warnings(), _silent("torch.onnx"):
        warnings.simplefilter("ignore")  # it advises the other exporter, which cannot write opset 13
        try:
            torch.onnx.export(
                net,
                (torch.zeros(1, *input_shape),),
                buffer,
                dynamo=False,
                training=torch.onnx.TrainingMode.PRESERVE,  # else batch norms are folded away
                do_constant_folding=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise ExportError(f"torch cannot export this network to ONNX opset {OPSET}: {error}") from error
    data: bytes = buffer.getvalue()
    return data


@contextmanager
def _silent(logger: str) -> Any:
    level = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(level)


def _write_products_as_gemm(model: onnx.ModelProto) -> None:
    """Turn what the exporter makes of a dense layer without bias, MatMul(x, Transpose(weight)), into Gemm(x, weight).

    Only where x is (N, in): a Gemm takes no further axes.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    products = []
    for node in model.graph.node:
        turned = makers.get(node.input[1]) if node.op_type == "MatMul" else None
        if turned is not None and turned.op_type == "Transpose" and turned.input[0] in weights:
            products.append((node, turned))
    if not products:
        return
    bare = onnx.load_from_string(_without_numbers(model))
    inferred = onnx.shape_inference.infer_shapes(bare).graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*inferred.value_info, *inferred.input)}
    for node, turned in products:
        if ranks.get(node.input[0]) != 2:
            continue
        node.op_type = "Gemm"
        node.input[1] = turned.input[0]
        node.attribute.append(onnx.helper.make_attribute("transB", 1))
    read = {name for node in model.graph.node for name in node.input}
    idle = {turned.name: turned for _, turned in products if turned.output[0] not in read}
    for turned in idle.values():
        model.graph.node.remove(turned)


def _numbers(net: nn.Module) -> dict[str, NDArray[Any]]:
    """Every parameter and floating-point buffer by name, float32."""
    return {
        name: tensor.detach().cpu().numpy().astype(np.float32)
        for name, tensor in net.state_dict().items()
        if tensor.is_floating_point()
    }


def _readers(model: onnx.ModelProto) -> Mapping[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _node(readers: Mapping[str, list[onnx.NodeProto]], tensor: str, *kinds: str) -> str:
    """The name of the one node that reads `tensor`."""
    found = readers.get(tensor, [])
    if len(found) != 1 or found[0].op_type not in kinds:
        what = [f"{node.op_type} '{node.name}'" for node in found] or "no node"
        raise ExportError(
            f"'{tensor}' should be read by exactly one {' or '.join(kinds)} of the exported graph, but is by {what}: "
            "use each weight-enabled layer, batch norm and shuffle once in the forward"
        )
    name: str = found[0].name
    return name


def _layer(name: str, module: Any, readers: Mapping[str, list[onnx.NodeProto]]) -> Layer:
    conv = isinstance(module, WeightEnabledConv2d)
    return Layer(
        name=name,
        kind="conv" if conv else "linear",
        node=_node(readers, f"{name}.weight", "Conv" if conv else "Gemm"),
        weight=f"{name}.weight",
        bias=None if module.bias is None else f"{name}.bias",
        in_channels=module.in_channels if conv else module.in_features,
        out_channels=module.out_channels if conv else module.out_features,
        groups=module.groups_allowed,
    )


def _pattern(name: str) -> NormPattern:
    return NormPattern(f"{name}.weight", f"{name}.bias", f"{name}.running_mean", f"{name}.running_var")


def _without_numbers(model: onnx.ModelProto) -> bytes:
    """The graph with its tensors turned into typed inputs; small constants of the graph itself stay."""
    graph = model.graph
    kept, opened = [], []
    read = {name for node in graph.node for name in node.input}
    for tensor in graph.initializer:
        if tensor.name not in read:
            continue
        small = tensor.data_type == onnx.TensorProto.INT64 and not tensor.name.endswith(".permutation")
        if small:
            kept.append(tensor)
        else:
            opened.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    bare = onnx.helper.make_graph(
        list(graph.node),
        "supernet",
        [value for value in graph.input if value.name == INPUT] + opened,
        list(graph.output),
        kept,
    )
    for node in bare.node:
        node.ClearField("doc_string")  # the exporter writes source paths there
    made = onnx.helper.make_model(bare, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    made.ir_version = IR_VERSION
    made.producer_name = "wenet-trainer"
    data: bytes = made.SerializeToString()
    return data
