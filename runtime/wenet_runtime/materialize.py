"""Materializes a mode: supernet topology + weights + groups per layer → a plain ONNX model, without torch.

Weight-enabling (paper III-A, III-B) takes a layer's block diagonal: group i of the outputs reads group i
of the inputs. The mode's batch norms are folded and its shuffles written into the weights where exact.
"""

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Bundle, Layer, Norm, Shuffle, TensorSpec
from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.fold_batchnorm import fold_batchnorms
from wenet_runtime.lowering.fold_shuffle import fold_shuffle
from wenet_runtime.lowering.graph import Graph, attribute, set_attribute
from wenet_runtime.lowering.images import as_convolution, keep_images
from wenet_runtime.lowering.operators import is_layer
from wenet_runtime.lowering.precision import apply
from wenet_runtime.lowering.ranges import split_statistics


@dataclass(frozen=True)
class Supernet:
    """What every mode is made from: the full network's topology, its weights and what may be switched."""

    topology: bytes
    inputs: Tuple[TensorSpec, ...]
    layers: Tuple[Layer, ...]
    norms: Tuple[Norm, ...]
    shuffles: Tuple[Shuffle, ...]
    weights: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, bundle: Bundle) -> "Supernet":
        """The supernet that a bundle carries."""
        manifest = bundle.manifest
        return cls(
            topology=bundle.topology(),
            inputs=manifest.inputs,
            layers=manifest.layers,
            norms=manifest.norms,
            shuffles=manifest.shuffles,
            weights=bundle.weights(),
        )


def shuffle_order(channels: int, groups: int) -> NDArray[Any]:
    """Indices of the paper's shuffle: reshape (groups, n) → transpose → flatten; shuffled[k] = x[order[k]]."""
    return np.arange(channels, dtype=np.int64).reshape(groups, channels // groups).T.reshape(-1).copy()


def block_diagonal(weight: NDArray[Any], groups: int, emitted: Optional[int] = None) -> NDArray[Any]:
    """The enabled part of a full weight.

    Args:
        weight: (out, in, …).
        groups: number of independent groups; divides both.
        emitted: number of groups of the result, a divisor of `groups` (the same if not given); fewer than
            `groups` compute the same with zeros between the blocks.

    Returns:
        (out, in / emitted, …): for each output its own group's inputs, as grouped convolution wants it.
    """
    emitted = groups if emitted is None else emitted
    outputs, inputs = weight.shape[:2]
    out, size = outputs // groups, inputs // groups
    result = np.zeros((outputs, inputs // emitted, *weight.shape[2:]), weight.dtype)
    within = groups // emitted
    for group in range(groups):
        rows, column = slice(group * out, (group + 1) * out), group % within * size
        result[rows, column : column + size] = weight[rows, group * size : (group + 1) * size]
    return result


def materialize(
    supernet: Supernet,
    groups: Mapping[str, int],
    statistics: Optional[Mapping[str, NDArray[Any]]] = None,
    *,
    emitted: Optional[Mapping[str, int]] = None,
    fold: bool = True,
    precision: str = "fp32",
) -> bytes:
    """Build the plain network of one configuration; see `lower`.

    Returns:
        ONNX bytes, opset 13, IR version 7, no external data.
    """
    return lower(supernet, groups, statistics, emitted=emitted, fold=fold, precision=precision).to_bytes()


def lower(
    supernet: Supernet,
    groups: Mapping[str, int],
    statistics: Optional[Mapping[str, NDArray[Any]]] = None,
    *,
    emitted: Optional[Mapping[str, int]] = None,
    fold: bool = True,
    precision: str = "fp32",
    reduce_range: bool = False,
    symmetric: bool = False,
    fp32_layers: Sequence[str] = (),
) -> Graph:
    """The plain network of one configuration as a graph and its numbers.

    Args:
        supernet: topology and weights.
        groups: group count of every weight-enabled layer, by name.
        statistics: recalibrated batch-norm means and variances, replacing those of the weights by name, and the
            ranges that int8 needs.
        emitted: layers that are computed with fewer groups and zeros between the blocks, by name: the same
            function, where an engine is quicker at it. Others keep their groups.
        fold: off leaves batch norms and shuffles as operators (the reference for the passes' tests).
        precision: how the mode is emitted; see `lowering.precision`.
        reduce_range: for int8 on a processor whose products overflow; see `lowering.precision`.
        symmetric, fp32_layers: for int8 on an engine that wants it so; see `lowering.quantize`.

    Returns:
        The graph. Numbers that no pass changed are the supernet's own arrays, not copies.

    Raises:
        BundleError: a layer without groups, a count it does not allow, or parts that do not fit.
    """
    unknown = (set(groups) | set(emitted or {})) - {layer.name for layer in supernet.layers}
    if unknown:
        raise BundleError(f"groups are given for {sorted(unknown)}, which are no layers of this network")
    weights: Dict[str, NDArray[Any]] = dict(supernet.weights)
    norms, ranges = split_statistics(statistics or {})
    for name, values in norms.items():
        if name not in weights or weights[name].shape != values.shape:
            raise BundleError(f"the statistics' '{name}' {values.shape} fits no number of the weights: export it again")
        weights[name] = values
    counts = {layer.name: _allowed(layer, groups) for layer in supernet.layers}
    try:
        graph = _complete(supernet, counts, weights)
        for layer in supernet.layers:
            count = counts[layer.name]
            _enable(graph, layer, count, _emitted(layer, count, emitted or {}), weights)
        if fold:
            keep_images(graph)
            fold_batchnorms(graph)
            for shuffle in supernet.shuffles:
                fold_shuffle(graph, graph.node(shuffle.node))
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        # A bundle that was made wrong, not damaged: NumPy says where its parts disagree.
        raise BundleError(f"the bundle's parts do not fit together ({error}): export it again") from error
    apply(graph, precision, ranges, reduce_range=reduce_range, symmetric=symmetric, fp32_layers=fp32_layers)
    return graph


def _emitted(layer: Layer, groups: int, emitted: Mapping[str, int]) -> int:
    count = emitted.get(layer.name, groups)
    if count < 1 or groups % count:
        raise BundleError(f"layer '{layer.name}' of {groups} groups cannot be computed with {count}: give a divisor")
    return count


def _complete(supernet: Supernet, groups: Mapping[str, int], weights: Mapping[str, NDArray[Any]]) -> Graph:
    """The topology with every number in place: weights, the active batch norms, the shuffles' indices."""
    numbers = dict(weights)
    graph = Graph.parse(
        supernet.topology,
        numbers=numbers,
        inputs=[spec.name for spec in supernet.inputs],
        open_nodes=[norm.node for norm in supernet.norms] + [shuffle.node for shuffle in supernet.shuffles],
    )
    for norm in supernet.norms:
        pattern = norm.patterns[groups[norm.layer] if norm.layer is not None else 1]
        node = graph.node(norm.node)
        for position, name in enumerate((pattern.weight, pattern.bias, pattern.mean, pattern.var), start=1):
            if name not in numbers:
                raise BundleError(f"the weights lack '{name}' of batch norm '{norm.node}': export the bundle again")
            graph.connect(node, position, name)
        set_attribute(node, "epsilon", norm.eps)
    for shuffle in supernet.shuffles:
        graph.own_number(graph.node(shuffle.node), 1, shuffle_order(shuffle.channels, shuffle.groups))
    return graph


def _allowed(layer: Layer, groups: Mapping[str, int]) -> int:
    if layer.name not in groups:
        raise BundleError(f"no group count given for layer '{layer.name}'")
    count = groups[layer.name]
    if count not in layer.groups:
        raise BundleError(f"layer '{layer.name}' allows {layer.groups} groups, not {count}")
    return count


def _enable(graph: Graph, layer: Layer, groups: int, emitted: int, weights: Mapping[str, NDArray[Any]]) -> None:
    """Give the layer's node its enabled weights, in `emitted` groups."""
    node = graph.node(layer.node)
    weight = weights[layer.weight]
    if weight.shape[:2] != (layer.out_channels, layer.in_channels):
        raise BundleError(
            f"weight '{layer.weight}' is {weight.shape}, layer '{layer.name}' wants "
            f"({layer.out_channels}, {layer.in_channels}, …): export the bundle again"
        )
    if groups == 1:
        return
    enabled = block_diagonal(weight, groups, emitted)
    if layer.kind == "conv" and node.op_type == "Conv":
        set_attribute(node, "group", emitted)
        graph.own_number(node, 1, enabled)
    elif layer.kind == "linear" and node.op_type == "Gemm":
        if attribute(node, "transA", 0) or not attribute(node, "transB", 0):
            raise BundleError(f"layer '{layer.name}' does not read (batch, in) by (out, in): export the bundle again")
        if not is_layer(graph, node):
            raise BundleError(
                f"layer '{layer.name}' is more than x · W + b: its Gemm has an alpha, a beta, a computed bias or not "
                "one number for each output; write them into its weights and export the bundle again"
            )
        if emitted == 1:
            graph.own_number(node, 1, enabled)
        else:
            as_convolution(graph, node, enabled, emitted)
    else:
        raise BundleError(f"layer '{layer.name}' is a {node.op_type} and not a {layer.kind}: export the bundle again")
