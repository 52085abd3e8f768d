"""Gauges that are read when metrics are asked for, and left out where nothing is known: unknown is never 0."""

import logging
import math
from typing import Callable, Iterable, Optional, Set

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.meters.base import OK, Power
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.device_watch import DeviceWatch
from wenet_runtime.service.health import meter_power, meter_state

MAX_FAILURES = 16

_LOG = logging.getLogger(__name__)


class Readings:
    """A collector for Prometheus' registry: the meter, the budgets, the guard, the device and the decision log.

    Args:
        runtime: tells whose meter, power budget and guard: that of the bundle that is served now.
        log: whose drops are counted; None shows none.
        watch: whose temperatures are shown; None shows none.
    """

    def __init__(
        self, runtime: Callable[[], Runtime], log: Optional[DecisionLog], watch: Optional[DeviceWatch]
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._watch = watch
        self._failures: Set[str] = set()

    def collect(self) -> Iterable[Metric]:
        """Every family; those of which nothing is known have no samples. Never raises for what a meter does."""
        yield from self._meter()
        yield from self._budget()
        yield from self._device()
        guard = self._runtime().guard
        alarms = CounterMetricFamily("wenet_guard_alarms", "Alarms of the cascade's guard")
        if guard is not None:
            alarms.add_metric([], guard.alarms)
        yield alarms
        faults = CounterMetricFamily("wenet_mode_faults", "Runs in which a mode failed", labels=["mode", "kind"])
        for (mode_id, kind), count in self._runtime().faults.items():
            faults.add_metric([mode_id, kind], count)
        yield faults
        dropped = CounterMetricFamily("wenet_decisions_dropped", "Decisions that did not reach their log's file")
        if self._log is not None:
            dropped.add_metric([], self._log.dropped)
        yield dropped

    def _meter(self) -> Iterable[Metric]:
        watts = GaugeMetricFamily("wenet_power_watts", "Power now", labels=["rail"])
        age = GaugeMetricFamily("wenet_power_sample_age_seconds", "Age of the power reading")
        up = GaugeMetricFamily("wenet_meter_up", "1 while the meter gives fresh readings", labels=["source"])
        restarts = CounterMetricFamily("wenet_meter_restarts", "How often what the meter reads from was started again")
        step = GaugeMetricFamily("wenet_power_resolution_watts", "Smallest step between power readings seen so far")
        meter = self._runtime().meter
        power = self._power()
        if power is not None:
            watts.add_metric([power.rail], power.watts)
            if not math.isnan(power.age_s):
                age.add_metric([], power.age_s)
        state = meter_state(meter)
        up.add_metric([meter.source], float(state.status == OK))
        restarts.add_metric([], state.restarts)
        if state.resolution_mw is not None:
            step.add_metric([], state.resolution_mw / 1e3)
        return watts, age, up, restarts, step

    def _power(self) -> Optional[Power]:
        """The meter's reading; None if it gives none that can be one."""
        try:
            return meter_power(self._runtime().meter)
        except Exception as error:  # noqa: BLE001 - a meter may come from elsewhere, and costs no more than its gauge
            kind = f"{type(error).__name__}: {error}"
            if kind not in self._failures and len(self._failures) < MAX_FAILURES:
                self._failures.add(kind)
                _LOG.warning("the meter gives no power: %s", kind)
            return None

    def _budget(self) -> Iterable[Metric]:
        planned = GaugeMetricFamily("wenet_power_budget_watts", "Average that may be taken from now on")
        spent = GaugeMetricFamily("wenet_power_spent_watts", "Average of the last window, as charged")
        power = self._runtime().power
        if power is not None:
            planned.add_metric([], power.power_w)
            if power.spent_w is not None:
                spent.add_metric([], power.spent_w)
        return planned, spent

    def _device(self) -> Iterable[Metric]:
        degrees = GaugeMetricFamily("wenet_temperature_celsius", "Temperature of a thermal zone", labels=["zone"])
        throttled = GaugeMetricFamily(
            "wenet_throttled", "1 while something holds the device's speed down", labels=["cause"]
        )
        if self._watch is not None:
            for zone, trend in list(self._watch.trends.items()):
                now_c = trend.temperature_c
                if now_c is not None:
                    degrees.add_metric([zone], now_c)
            if self._watch.throttled is not None:
                throttled.add_metric(["thermal"], float(self._watch.throttled))
        return degrees, throttled
