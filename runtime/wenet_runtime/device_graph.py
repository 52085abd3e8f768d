"""A mode's plain network as this device computes it: in the precision and form that its engine asks for."""

import platform
from typing import TYPE_CHECKING, Any, Mapping

from numpy.typing import NDArray

from wenet_runtime.bundle import Mode
from wenet_runtime.device import processor_flags
from wenet_runtime.engines.base import Backend, numerics_of

if TYPE_CHECKING:
    from wenet_runtime.lowering.graph import Graph
    from wenet_runtime.materialize import Supernet


def lowered(
    backend: Backend,
    supernet: "Supernet",
    mode: Mode,
    statistics: Mapping[str, NDArray[Any]],
    emitted: Mapping[str, int],
) -> "Graph":
    """A mode's plain network as a backend computes it on this device.

    Args:
        backend: says in which precision.
        supernet: the bundle's.
        mode: groups and precision.
        statistics: the mode's own; int8 needs its ranges.
        emitted: with how many groups layers are computed, where not with their own.
    """
    from wenet_runtime.lowering.precision import wants_reduced_range
    from wenet_runtime.materialize import lower

    numerics = numerics_of(backend, mode)
    return lower(
        supernet,
        mode.groups,
        statistics,
        emitted=emitted,
        precision=numerics.emitted,
        # What overflows is products of uint8 on the CPU.
        reduce_range=not numerics.symmetric and wants_reduced_range(platform.machine(), processor_flags()),
        symmetric=numerics.symmetric,
        fp32_layers=numerics.fp32_layers,
    )
