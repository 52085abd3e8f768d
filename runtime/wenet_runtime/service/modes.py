"""The body of GET /modes: what the modes cost here, what was decided of late, and what is known of the device."""

import math
from dataclasses import asdict
from typing import Any, Dict, Optional, Tuple

from wenet_runtime.bundle import Mode
from wenet_runtime.decision import members_of
from wenet_runtime.forecast import Forecast
from wenet_runtime.mode_costs import Cost, costs_of, resident_mb
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.device_watch import DeviceWatch
from wenet_runtime.service.health import without_home
from wenet_runtime.service.inference import Service

SHOWN_DECISIONS = 20


def modes_members(service: Service, device: Dict[str, Any]) -> Dict[str, Any]:
    """The body of GET /modes."""
    serving, defaults = service.active, service.defaults
    runtime, log = serving.runtime, serving.decisions.log
    forecast = runtime.forecast()  # once, so that all modes are seen at one instant
    total = sum(service.metrics.served.values())
    costs = costs_of(runtime.pool)
    return {
        "model": serving.bundle.manifest.model,
        "bundle_sha256": serving.bundle.sha256,
        "policy": {
            "budget_ms": defaults.budget_ms,
            "budget_mj": defaults.budget_mj,
            "min_accuracy": defaults.min_accuracy,
            "mode": defaults.mode,
            "on_miss": defaults.on_miss,
        },
        "active": runtime.active,
        "engine": runtime.pool.engine_name,
        "queue_depth": runtime.queue_depth,
        "slowdown": round(runtime.controller.slowdown.factor, 4),
        "memory_mb": _rounded(resident_mb(runtime.pool)),
        "power": None if runtime.power is None else asdict(runtime.power),
        "guard": None if runtime.guard is None else asdict(runtime.guard),
        "device": device,
        "decision_log": {"dropped": log.dropped, "failure": log.failure},
        "decisions": [members_of(one) for one in log.latest(SHOWN_DECISIONS)],
        "modes": [
            _mode(mode, runtime, forecast, costs[mode.id], (service.metrics.served.get(mode.id, 0), total))
            for mode in serving.bundle.modes
        ],
    }


def device_members(watch: Optional[DeviceWatch]) -> Dict[str, Any]:
    """How hot the device is, and what holds it down; null where that is unknown, or never comes."""
    hottest = None if watch is None else watch.hottest
    left_s = None if watch is None else watch.seconds_to_limit
    return {
        "temperature_c": _rounded(None if hottest is None else hottest.temperature_c),
        "slope_c_per_s": _rounded(None if hottest is None else hottest.slope_c_per_s),
        "seconds_to_limit": _rounded(None if left_s is None or math.isinf(left_s) else left_s),
        "throttled": None if watch is None else watch.throttled,
        "power_setting": None if watch is None else watch.power_setting,
    }


def _mode(mode: Mode, runtime: Runtime, forecast: Forecast, cost: Cost, served_of: Tuple[int, int]) -> Dict[str, Any]:
    served, total = served_of
    out = runtime.pool.residency.out.get(mode.id)
    profile = runtime.controller.profiles.get(mode.id)  # none of a mode that its memory keeps out
    percentiles = (None, None, None) if profile is None else (profile.p50_ms, profile.p95_ms, profile.p99_ms)
    return {
        "id": mode.id,
        "groups": dict(mode.groups),
        "precision": mode.precision,
        "macs": mode.macs,
        "params": mode.params,
        "accuracy": mode.accuracy.value,
        "latency_ms": {name: _rounded(value) for name, value in zip(("p50", "p95", "p99"), percentiles)},
        "predicted_ms": _predicted(runtime, mode, forecast),
        "energy_mj": _rounded(None if profile is None else profile.energy_mj),
        "energy_source": "none" if profile is None else profile.energy_source,
        "resident": cost.resident,
        "out_of_service": None if out is None else without_home(out),
        "memory_mb": _rounded(cost.memory_mb),
        "load_ms": _rounded(cost.load_ms),
        "served": served,
        "active_share": round(served / total, 4) if total else 0.0,
    }


def _predicted(runtime: Runtime, mode: Mode, forecast: Forecast) -> Optional[Dict[str, Any]]:
    """What a row is predicted to take now: half of the requests, and the share asked for."""
    controller = runtime.controller
    at = controller.predictor.index.get(mode.id)
    if at is None:
        return None
    share = f"p{100 * controller.attainment:g}"
    return {"p50": _rounded(forecast.medians_ms[at]), share: _rounded(forecast.bounds_ms[at])}


def _rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None else round(value, 4)
