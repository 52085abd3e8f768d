"""A mode's precision as a property of how it is emitted, and the ways worth measuring.

fp32 and bf16 emit the same float graph: bf16 is what an engine computes it in where the processor can
(OpenVINO), and an engine that cannot answers in float. fp16 and int8 change the graph.
"""

from dataclasses import dataclass
from typing import AbstractSet, Dict, Mapping, Optional, Sequence, Tuple

from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.lowering.half import to_half
from wenet_runtime.lowering.quantize import Ranges, activation_names, holders, quantize
from wenet_runtime.manifest import PRECISIONS, Layer


@dataclass(frozen=True)
class Variant:
    """One way to emit a configuration; which wins depends on the engine and the host.

    Attributes:
        precision: one of `PRECISIONS`.
        emitted: layers computed with fewer groups than they have, by name; see `materialize.lower`.
    """

    precision: str
    emitted: Mapping[str, int]


def apply(
    graph: Graph,
    precision: str,
    ranges: Optional[Ranges] = None,
    *,
    reduce_range: bool = False,
    symmetric: bool = False,
    fp32_layers: Sequence[str] = (),
) -> None:
    """Write a lowered float graph in a precision, in place.

    Args:
        graph: batch norms folded, weights in place.
        precision: one of `PRECISIONS`.
        ranges: of the activations, for int8; see `lowering.ranges`.
        reduce_range: for int8 on a processor that wants it; see `wants_reduced_range`.
        symmetric, fp32_layers: for int8; see `quantize`.

    Raises:
        BundleError: an unknown precision, int8 without ranges, or numbers that do not fit fp16.
    """
    if precision not in PRECISIONS:
        raise BundleError(f"unknown precision '{precision}': known are {', '.join(PRECISIONS)}")
    if precision == "fp16":
        to_half(graph)
    elif precision == "int8":
        known = ranges or {}
        if not any(name in known for origin in activation_names(graph) for name in holders(graph, origin)):
            raise BundleError("an int8 mode needs the ranges of its activations, and its statistics hold none of them")
        quantize(graph, known, reduce_range=reduce_range, symmetric=symmetric, fp32_layers=fp32_layers)


def wants_reduced_range(machine: str, flags: AbstractSet[str]) -> bool:
    """Whether int8 products may overflow here, so that weights need 7 bits.

    Args:
        machine: the architecture, as `platform.machine()` says it.
        flags: of the processor, as /proc/cpuinfo lists them.
    """
    return machine.lower() in ("x86_64", "amd64", "i686") and not flags & {"avx512_vnni", "avx_vnni"}


def fewer_groups(layers: Sequence[Layer], groups: Mapping[str, int], at_most: int) -> Dict[str, int]:
    """Emit every layer with at most so many groups: a divisor of those it has, zeros between the blocks.

    Returns:
        Emitted groups of the layers that have more, by name.
    """
    return {
        layer.name: max(one for one in range(1, at_most + 1) if groups[layer.name] % one == 0)
        for layer in layers
        if groups[layer.name] > at_most
    }


def dense_emission(layers: Sequence[Layer], groups: Mapping[str, int]) -> Dict[str, int]:
    """Emit every layer with one group: grouped int8 and bf16 kernels may lose to dense ones of more arithmetic."""
    return fewer_groups(layers, groups, 1)


def candidates(
    layers: Sequence[Layer], groups: Mapping[str, int], precisions: Sequence[str] = tuple(PRECISIONS)
) -> Tuple[Variant, ...]:
    """The variants of one configuration that are worth measuring, without those that are the same.

    In fp32 the groups are emitted as they are, because a plan decides there layer by layer; in other precisions
    as `emissions` says.
    """
    return tuple(
        Variant(precision, emitted)
        for precision in dict.fromkeys(precisions)
        for emitted in (emissions(layers, groups) if precision != "fp32" else ({},))
    )


def emissions(layers: Sequence[Layer], groups: Mapping[str, int]) -> Tuple[Mapping[str, int], ...]:
    """The emissions of a whole network worth measuring: its groups as they are, at most four, and one."""
    found = [{}, fewer_groups(layers, groups, 4), dense_emission(layers, groups)]
    return tuple(one for at, one in enumerate(found) if one not in found[:at])
