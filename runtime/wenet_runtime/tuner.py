"""Chooses how each mode is emitted on this host: by measuring, with what was measured before in the cache."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

from numpy.typing import NDArray

from wenet_runtime.bundle import Mode
from wenet_runtime.device import Device
from wenet_runtime.device_graph import lowered
from wenet_runtime.engines.base import Backend, builds_quickly
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

        # The rule is about a CPU's vectors, and where building takes minutes only whole networks are measured.
        layer_by_layer = mode.precision == "fp32" and builds_quickly(self._backend)
        if not self._measured:
            return Plan(supernet).by_rule(mode.groups) if layer_by_layer else {}
        if not layer_by_layer:
            return self._variant(supernet, mode, statistics)
        path = plan_path(self._cache, self._device)
        figures = read_figures(path, self._device)
        known = figures.count
        chosen = Plan(supernet, partial(quickest_ms, self._backend), figures=figures).settled(mode.groups)
        if figures.count != known:
            write_figures(path, self._device, figures)
        return chosen

    def _variant(self, supernet: "Supernet", mode: Mode, statistics: Mapping[str, NDArray[Any]]) -> Mapping[str, int]:
        """The quickest of a few emissions of the whole network, as it will be served."""
        from wenet_runtime.lowering.precision import emissions

        ways = emissions(supernet.layers, mode.groups)
        if len(ways) == 1:
            return ways[0]
        graphs = [lowered(self._backend, supernet, mode, statistics, emitted) for emitted in ways]
        times = quickest_ms(self._backend, graphs, precision=mode.precision)
        return ways[times.index(min(times))]
