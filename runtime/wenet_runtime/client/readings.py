"""What a server's /metrics say of power and heat, once a second while a load runs."""

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional

from wenet_runtime.client.exchange import Client, Unreachable

EVERY_S = 1.0

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """One look at /metrics. What is unknown is left out.

    Attributes:
        at_s: when, from the start of the load.
        power_w: by rail.
        temperature_c: by thermal zone.
        source: of the watts, e.g. `rail:VDD_IN` or `sim`.
        energy_mj: of all inferences so far.
    """

    at_s: float
    power_w: Dict[str, float] = field(default_factory=dict)
    temperature_c: Dict[str, float] = field(default_factory=dict)
    source: Optional[str] = None
    energy_mj: Optional[float] = None


def reading_of(text: str, at_s: float) -> Reading:
    """Read Prometheus' text. Raises `ValueError` if it is none."""
    from prometheus_client.parser import text_string_to_metric_families

    found = Reading(at_s)
    source, energy_mj = None, None
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "wenet_power_watts":
                found.power_w[sample.labels.get("rail", "")] = float(sample.value)
            elif sample.name == "wenet_temperature_celsius":
                found.temperature_c[sample.labels.get("zone", "")] = float(sample.value)
            elif sample.name == "wenet_meter_up" and sample.value:
                source = sample.labels.get("source")
            elif sample.name == "wenet_energy_joules_total":
                energy_mj = (energy_mj or 0.0) + float(sample.value) * 1e3
    return Reading(at_s, found.power_w, found.temperature_c, source, energy_mj)


class Watch:
    """Reads /metrics on a thread of its own from `start` to `stop`. A reading that fails is left out.

    Args:
        client: of the server.
        start_s: monotonic, what `Reading.at_s` counts from.
        every_s: between readings.
        clock: monotonic seconds.
    """

    def __init__(
        self, client: Client, *, start_s: float, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._start_s = start_s
        self._every_s = every_s
        self._clock = clock
        self._stopped = threading.Event()
        self._found: List[Reading] = []
        self._thread = threading.Thread(target=self._read, name="wenet-bench-readings", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> List[Reading]:
        """End, and hand over what was read."""
        self._stopped.set()
        self._thread.join()
        return list(self._found)

    def _read(self) -> None:
        while True:
            at_s = self._clock() - self._start_s
            try:
                reply = self._client.request("GET", "/metrics")
                if reply.status == 200:
                    self._found.append(reading_of(reply.body.decode(), at_s))
            except (Unreachable, ValueError) as error:
                _LOG.debug("no reading: %s", error)
            if self._stopped.wait(self._every_s):
                return
