"""Opens the meter of the settings, learns what the idle board draws, and lends the meter to all who measure with it."""

import logging
from typing import Optional

from wenet_runtime.engines import ON_GPU
from wenet_runtime.meters.auto import PERMISSION, Chosen, choose_meter
from wenet_runtime.meters.base import Meter, MeterState, Power
from wenet_runtime.meters.baseline import measure_idle_w
from wenet_runtime.settings import Settings

_LOG = logging.getLogger(__name__)


class Lent:
    """A meter that several bundles measure with: who borrows it does not close it.

    Args:
        meter: whoever opened it closes it.
    """

    source: str
    idle_w: Optional[float]

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __getattr__(self, name: str) -> object:
        """What the meter says now: `source` and `idle_w` may change while it runs."""
        return getattr(self._meter, name)

    def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
        """See `Meter`."""
        return self._meter.energy_mj(start_s, end_s)

    def power(self) -> Optional[Power]:
        """See `Meter`."""
        return self._meter.power()

    def state(self) -> MeterState:
        """See `Meter`."""
        return self._meter.state()

    def close(self) -> None:
        """The meter goes on: others use it."""


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
