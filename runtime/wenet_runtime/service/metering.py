"""Opens the meter of the settings, and learns what the idle board draws."""

import logging

from wenet_runtime.engines import ON_GPU
from wenet_runtime.meters.auto import PERMISSION, Chosen, choose_meter
from wenet_runtime.meters.base import Meter
from wenet_runtime.meters.baseline import measure_idle_w
from wenet_runtime.settings import Settings

_LOG = logging.getLogger(__name__)


def open_meter(settings: Settings) -> Chosen:
    """The source of energy, and why it is this one. Raises `MeterError`."""
    chosen = choose_meter(settings.meter, on_gpu=settings.engine in ON_GPU, rail=settings.power_rail)
    for name, why in chosen.passed_over.items():
        if PERMISSION in why:  # the others have nothing to measure here, and nothing to do about it
            _LOG.warning("the meter %s is passed over: %s", name, why)
    return chosen


def know_idle(settings: Settings, meter: Meter) -> None:
    """Let the meter know what the idle board draws: as the settings or itself say, or as it is measured now."""
    if settings.idle_w is not None:
        meter.idle_w = settings.idle_w
    elif meter.idle_w is None:
        meter.idle_w = measure_idle_w(meter)
