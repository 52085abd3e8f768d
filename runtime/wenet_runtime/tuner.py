"""Chooses how each mode is emitted on this host: by measuring, with what was measured before in the cache."""

import platform
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Mapping

from numpy.typing import NDArray

from wenet_runtime.bundle import Mode
from wenet_runtime.device import Device, processor_flags
from wenet_runtime.engines.base import Backend
from wenet_runtime.profiler import quickest_ms

if TYPE_CHECKING:  # these import onnx, which serving from a warm cache needs not
    from wenet_runtime.materialize import Supernet


def plan_id(measured: bool) -> str:
    """What tells modes that were emitted so from others."""
    return "tuned" if measured else "rule"


class Tuner:
    """Emitted groups for modes of one bundle. Figures are kept per device, for all bundles.

    Args:
        cache: the cache's root.
        device: whose figures are read and kept.
        backend: builds and loads what is measured.
        measured: off decides by a rule, without measuring anything.
    """

    def __init__(self, cache: Path, device: Device, backend: Backend, *, measured: bool = True) -> None:
        self._cache = cache
        self._device = device
        self._backend = backend
        self._measured = measured

    def emitted(self, supernet: "Supernet", mode: Mode, statistics: Mapping[str, NDArray[Any]]) -> Mapping[str, int]:
        """With how many groups the mode's layers are computed, where not with their own.

        Args:
            supernet: the bundle's.
            mode: groups and precision.
            statistics: the mode's own; int8 needs its ranges.

        Raises:
            EngineError: a network cannot be built, or the figures cannot be kept.
        """
        from wenet_runtime.plan import Plan
        from wenet_runtime.plan_file import plan_path, read_figures, write_figures

        if not self._measured:
            return Plan(supernet).by_rule(mode.groups) if mode.precision == "fp32" else {}
        if mode.precision != "fp32":
            return self._variant(supernet, mode, statistics)
        path = plan_path(self._cache, self._device)
        figures = read_figures(path, self._device)
        known = figures.count
        chosen = Plan(supernet, partial(quickest_ms, self._backend), figures=figures).settled(mode.groups)
        if figures.count != known:
            write_figures(path, self._device, figures)
        return chosen

    def _variant(self, supernet: "Supernet", mode: Mode, statistics: Mapping[str, NDArray[Any]]) -> Mapping[str, int]:
        """The quickest of a few emissions of the whole network, since a plan is measured in fp32."""
        from wenet_runtime.lowering.precision import candidates, wants_reduced_range
        from wenet_runtime.materialize import lower

        variants = candidates(supernet.layers, mode.groups, [mode.precision])
        reduce_range = wants_reduced_range(platform.machine(), processor_flags())  # as it will be served
        graphs = [
            lower(
                supernet,
                mode.groups,
                statistics,
                emitted=one.emitted,
                precision=mode.precision,
                reduce_range=reduce_range,
            )
            for one in variants
        ]
        times = quickest_ms(self._backend, graphs, precision=mode.precision)
        chosen: Dict[str, int] = dict(variants[times.index(min(times))].emitted)
        return chosen
