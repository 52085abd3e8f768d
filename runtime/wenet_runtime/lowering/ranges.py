"""Ranges of a mode's activations: observed by running its float network, kept among its statistics.

A mode's statistics file carries a range as `range.<tensor>`, float32 (2,): smallest and largest value.
"""

from typing import Any, Callable, Dict, Iterable, Mapping, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.lowering.quantize import Ranges, activation_names, holders

Tensors = Mapping[str, NDArray[Any]]
# (ONNX bytes, inputs by name) → outputs by name. The bytes are the same object for every batch.
Run = Callable[[bytes, Tensors], Tensors]

_PREFIX = "range."


def observe(
    graph: Graph, run: Run, batches: Iterable[Tensors], *, percentile: float = 100.0
) -> Dict[str, Tuple[float, float]]:
    """Run a float network and see between which values its activations lie.

    Args:
        graph: the lowered network; left as it is.
        run: computes it; every activation of interest is an output, so batches should be small.
        batches: inputs by name, like those the mode will be used on.
        percentile: share of a batch's values that the range covers on each side, above 50 to 100. Less than
            100 lets rare large values saturate and gives the others finer steps.

    Returns:
        For every tensor that `quantize` rounds, the widest range of all batches.

    Raises:
        BundleError: there are no batches.
    """
    names = activation_names(graph)
    model = _with_outputs(graph, names)
    found: Dict[str, Tuple[float, float]] = {}
    for batch in batches:
        answers = {**run(model, batch), **batch}
        for name in names:
            low, high = _bounds(answers[name], percentile)
            before = found.get(name, (low, high))
            found[name] = (min(low, before[0]), max(high, before[1]))
    if names and not found:
        raise BundleError("no batch was given to observe ranges on: give some training images")
    # Under every name that the values go by: another emission of the mode may lack some of them.
    return {holder: bounds for name, bounds in found.items() for holder in holders(graph, name)}


def as_statistics(ranges: Ranges) -> Dict[str, NDArray[Any]]:
    """Ranges as a mode's statistics file carries them."""
    return {f"{_PREFIX}{name}": np.array(bounds, np.float32) for name, bounds in ranges.items()}


def split_statistics(statistics: Tensors) -> Tuple[Dict[str, NDArray[Any]], Dict[str, Tuple[float, float]]]:
    """A mode's batch-norm statistics and its ranges. Raises `BundleError` for a range of another shape."""
    norms: Dict[str, NDArray[Any]] = {}
    ranges: Dict[str, Tuple[float, float]] = {}
    for name, value in statistics.items():
        if not name.startswith(_PREFIX):
            norms[name] = value
        elif value.shape != (2,):
            raise BundleError(f"the statistics' '{name}' is {value.shape} and not (2,): export the bundle again")
        else:
            ranges[name[len(_PREFIX) :]] = (float(value[0]), float(value[1]))
    return norms, ranges


def _bounds(value: NDArray[Any], percentile: float) -> Tuple[float, float]:
    if percentile >= 100:
        return float(value.min()), float(value.max())
    low, high = np.percentile(value, [100 - percentile, percentile])
    return float(low), float(high)


def _with_outputs(graph: Graph, names: Sequence[str]) -> bytes:
    """The model that also returns these tensors."""
    present = {value.name for value in (*graph.inputs, *graph.outputs)}
    added = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in present]
    return Graph(graph.nodes, graph.numbers, graph.inputs, [*graph.outputs, *added]).to_bytes()
