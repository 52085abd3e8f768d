"""Prometheus metrics of one server; names and units are part of HTTP API v1."""

import math
from collections import Counter as Counts
from typing import Dict, Optional, Tuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from wenet_runtime import __version__
from wenet_runtime.bundle import Bundle
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.memory import MB
from wenet_runtime.mode_costs import costs_of
from wenet_runtime.result import Result
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.device_watch import DeviceWatch
from wenet_runtime.service.problems import DECIDED
from wenet_runtime.service.readings import Readings

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OUTCOMES = (
    "ok", "late", "degraded", "rejected_deadline", "rejected_queue", "expired", "client_error", "error", "cancelled",
)  # fmt: skip
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0)
_RATIOS = (0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)


class Metrics:
    """Counts what happens to requests.

    Args:
        bundle: named in `wenet_bundle_info`.
        runtime: read for the gauges when metrics are asked for. Both until `follow` is told of others.
        log: likewise, for what it dropped; None shows nothing of it.
        watch: likewise, for temperatures and throttling; None shows none.
    """

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        *,
        log: Optional[DecisionLog] = None,
        watch: Optional[DeviceWatch] = None,
    ) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter("wenet_requests", "Requests by outcome", ["outcome"], registry=registry)
        self._duration = Histogram(
            "wenet_request_duration_seconds", "End to end", ["mode"], buckets=_SECONDS, registry=registry
        )
        self._queued = Histogram("wenet_queue_duration_seconds", "Waiting", buckets=_SECONDS, registry=registry)
        self._inference = Histogram(
            "wenet_inference_duration_seconds", "Computing", ["mode"], buckets=_SECONDS, registry=registry
        )
        self._budgets = Counter("wenet_budget_requests", "Answers that had a budget", ["met"], registry=registry)
        self._error = Histogram(
            "wenet_prediction_error_ratio", "Measured over predicted latency", buckets=_RATIOS, registry=registry
        )
        self._decisions = Counter(
            "wenet_decisions", "Decisions by why a mode answered, or none", ["reason"], registry=registry
        )
        self._switches = Counter("wenet_mode_switches", "Changes of mode", ["to", "reason"], registry=registry)
        self._energy = Counter("wenet_energy_joules", "Energy of inferences", ["rail"], registry=registry)
        self._active = Gauge("wenet_mode_active", "1 for the mode that answered last", ["mode"], registry=registry)
        self._resident = Gauge("wenet_mode_resident", "1 for modes that can answer now", ["mode"], registry=registry)
        self._memory = Gauge(
            "wenet_mode_memory_bytes", "What a mode takes beyond what resident ones share", ["mode"], registry=registry
        )
        self._load = Gauge("wenet_mode_load_seconds", "Until a loaded mode could answer", ["mode"], registry=registry)
        depth = Gauge("wenet_queue_depth", "Requests waiting", registry=registry)
        depth.set_function(lambda: self._runtime.queue_depth)
        inflight = Gauge("wenet_inflight_requests", "Requests accepted and not answered", registry=registry)
        inflight.set_function(lambda: self._runtime.pending)
        registry.register(Readings(lambda: self._runtime, log, watch))
        ProcessCollector(registry=registry)  # when it was started, what it takes
        build = Gauge("wenet_build_info", "1, labelled", ["version"], registry=registry)
        build.labels(__version__).set(1)
        self._swaps = Counter("wenet_bundle_swaps", "Changes of bundle, done or not", ["outcome"], registry=registry)
        self._info = Gauge("wenet_bundle_info", "1, labelled", ["sha256"], registry=registry)
        # What has not happened is 0 and not absent: a rate is seen from the first time on.
        for outcome in OUTCOMES:
            self._requests.labels(outcome)
        for met in ("true", "false"):
            self._budgets.labels(met)
        self._children: Dict[Tuple[str, str, str], Tuple[Counter, Counter, Histogram, Histogram]] = {}
        self.follow(bundle, runtime)

    def follow(self, bundle: Bundle, runtime: Runtime) -> None:
        """From now on this is what is served: gauges are its own, counters go on."""
        self._runtime = runtime
        self._children.clear()
        # An answer of the bundle before, which may still come, is counted under its mode's id.
        self.served: Counts[str] = Counts({mode.id: 0 for mode in bundle.modes})
        for gauge in (self._info, self._active, self._resident, self._memory, self._load):
            gauge.clear()
        self._info.labels(bundle.sha256).set(1)

    def swapped(self, outcome: str) -> None:
        """Count one change of bundle: `done`, `failed` or `rolled_back`."""
        self._swaps.labels(outcome).inc()

    def answered(self, result: Result, *, latency_ms: float, rows: int, met: "bool | None", in_time: bool) -> None:
        """Count one executed request.

        Args:
            result: what was executed.
            latency_ms: end to end.
            rows: of the request.
            met: whether its budgets held, that of energy included; None if it had none.
            in_time: whether it was answered before its deadline; true if it had none.
        """
        outcome = "late" if not in_time else "degraded" if result.reason == "degraded" else "ok"
        joules = None if result.energy_mj is None else result.energy_mj * rows / 1e3
        self.served[result.mode_id] += 1
        requests, decisions, duration, inference = self._of(outcome, result.reason, result.mode_id)
        requests.inc()
        decisions.inc()
        duration.observe(latency_ms / 1e3)
        self._queued.observe(result.queue_ms / 1e3)
        inference.observe(result.infer_ms / 1e3)
        if result.predicted_ms > 0:
            self._error.observe(latency_ms / result.predicted_ms)
        if met is not None:
            self._budgets.labels("true" if met else "false").inc()
        if result.switched:
            self._switches.labels(result.mode_id, result.reason).inc()
        if joules is not None and 0.0 <= joules < math.inf:  # a counter takes nothing else, and a meter may be broken
            self._energy.labels(result.energy_source.rpartition(":")[2]).inc(joules)  # as wenet_power_watts names it

    def _of(self, outcome: str, reason: str, mode_id: str) -> Tuple[Counter, Counter, Histogram, Histogram]:
        """What such an answer is counted by: to be looked up by its labels takes as long as to count."""
        found = self._children.get((outcome, reason, mode_id))
        if found is None:
            found = self._children[outcome, reason, mode_id] = (
                self._requests.labels(outcome),
                self._decisions.labels(reason),
                self._duration.labels(mode_id),
                self._inference.labels(mode_id),
            )
        return found

    def failed(self, slug: str) -> None:
        """Count one request that got a problem instead of an answer."""
        self._requests.labels(_OUTCOMES.get(slug, "client_error")).inc()
        if slug in DECIDED:
            self._decisions.labels(slug).inc()

    def cancelled(self) -> None:
        """Count one request whose client left."""
        self._requests.labels("cancelled").inc()

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        for mode_id in self._runtime.pool.modes:
            self._active.labels(mode_id).set(1 if mode_id == self._runtime.active else 0)
        for mode_id, cost in costs_of(self._runtime.pool).items():
            self._resident.labels(mode_id).set(1 if cost.resident else 0)
            self._memory.labels(mode_id).set(round(cost.memory_mb * MB))
            if cost.load_ms is not None:
                self._load.labels(mode_id).set(cost.load_ms / 1e3)
        return generate_latest(self._registry)


_OUTCOMES = {
    "deadline-infeasible": "rejected_deadline",
    "budget-impossible": "rejected_deadline",
    "queue-full": "rejected_queue",
    "draining": "rejected_queue",
    "deadline-exceeded": "expired",
    "internal": "error",
    "not-ready": "error",
}
