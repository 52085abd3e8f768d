"""Opens a bundle's whole supernet on this device, to measure what its layers cost."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Mapping

from wenet_runtime.device import Device
from wenet_runtime.engines.base import Backend
from wenet_runtime.errors import SettingsError
from wenet_runtime.meters.base import Meter
from wenet_runtime.profiler import quickest_ms
from wenet_runtime.service.metering import open_meter
from wenet_runtime.service.opening import open_backend
from wenet_runtime.settings import Settings
from wenet_runtime.tuner import plan_id

if TYPE_CHECKING:  # these import onnx, which loads only when something is measured
    from wenet_runtime.materialize import Supernet
    from wenet_runtime.plan import Plan

TABLE = "layers.json"


@dataclass(frozen=True)
class LayerBench:
    """What a layer table is measured with.

    Attributes:
        model: the network's name, for people.
        supernet: the bundle's.
        device: this one, with its engine and threads.
        path: where the table lies if nothing else is said: in the cache.
        plan_id: how layers are emitted; see `tuner.plan_id`.
    """

    model: str
    supernet: "Supernet"
    backend: Backend
    meter: Meter
    device: Device
    path: Path
    plan_id: str
    _plan: "Plan"
    _figures: Path

    def emitted(self, groups: Mapping[str, int]) -> Mapping[str, int]:
        """With how many groups a configuration's layers are computed here, where not with their own.

        What is measured for it is kept in the cache.
        """
        from wenet_runtime.plan_file import write_figures

        if self.plan_id != plan_id(measured=True):
            return self._plan.by_rule(groups)
        known = self._plan.figures.count
        chosen = self._plan.emitted(groups)
        if self._plan.figures.count != known:
            write_figures(self._figures, self.device, self._plan.figures)
        return chosen

    def close(self) -> None:
        """Free the engine and stop the meter."""
        self.backend.close()
        self.meter.close()


def _check_measurable(settings: Settings) -> None:
    """Refuse settings under which no layer can be measured. Raises `SettingsError`."""
    if settings.engine == "sim":
        raise SettingsError("--engine sim computes nothing, so its layers cost nothing: choose another --engine")
    if settings.threads == 0:
        raise SettingsError(
            "--threads 0 gives every mode threads of its own, but a layer table is of one number: give --threads N"
        )


def open_layer_bench(settings: Settings) -> LayerBench:
    """Open the bundle's supernet, the engine and the meter of the settings.

    Raises:
        BundleError, EngineError, MeterError, SettingsError: what is wrong, and what to do.
    """
    from wenet_runtime.materialize import Supernet
    from wenet_runtime.plan import Plan
    from wenet_runtime.plan_file import plan_path, read_figures

    _check_measurable(settings)
    cache, backend = open_backend(settings)
    figures = plan_path(settings.cache_dir.expanduser(), cache.device)
    supernet = Supernet.of(cache.bundle)
    plan = Plan(supernet, partial(quickest_ms, backend), figures=read_figures(figures, cache.device))
    return LayerBench(
        cache.bundle.manifest.model,
        supernet,
        backend,
        open_meter(settings).meter,
        cache.device,
        cache.path / TABLE,
        plan_id(settings.tune),
        plan,
        figures,
    )
