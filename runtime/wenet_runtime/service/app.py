"""The application: its routes, and how errors leave it."""

import math
from dataclasses import asdict
from typing import Any, Dict, FrozenSet, Optional

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from wenet_runtime import __version__
from wenet_runtime.bundle import Mode
from wenet_runtime.decision import members_of
from wenet_runtime.errors import WeNetError
from wenet_runtime.forecast import Forecast
from wenet_runtime.pool import Cost
from wenet_runtime.service.device_watch import DeviceWatch
from wenet_runtime.service.encoding import json_bytes
from wenet_runtime.service.envelope import App, Envelope
from wenet_runtime.service.health import health, is_ready
from wenet_runtime.service.inference import Service
from wenet_runtime.service.inference import infer as infer_within_budget
from wenet_runtime.service.metrics import CONTENT_TYPE
from wenet_runtime.service.pages import page_routes
from wenet_runtime.service.problems import PROBLEMS, Problem, problem_of, problem_response
from wenet_runtime.service.tokens import Tokens


def create_app(
    service: Service,
    *,
    hosts: Optional[FrozenSet[str]] = None,
    watch: Optional[DeviceWatch] = None,
    tokens: Optional[Tokens] = None,
    meter_name: str = "",
) -> App:
    """Build the ASGI application.

    Args:
        service: what it serves.
        hosts: names that `Host` may carry; None for any.
        watch: what is known of the device's heat and power setting; None if nothing is.
        tokens: of which a request must bring one; None without a token file.
        meter_name: which of the meters measures.
    """
    # The stock /docs page loads scripts from elsewhere: ours is one of the pages.
    app = FastAPI(title="wenet-runtime", version=__version__, docs_url=None, redoc_url=None)

    @app.post("/infer", summary="Answer within a budget", responses=_RESPONSES)
    async def infer(request: Request) -> Response:
        return await infer_within_budget(service, request)

    @app.get("/modes", summary="The modes and what they cost here")
    async def modes(request: Request) -> Response:
        # The trends of all zones take some milliseconds on a small board: not on the event loop.
        device = await run_in_threadpool(_device, watch)
        recent = await run_in_threadpool(service.recent.members)
        return _json_response({**_modes(service, device), "recent": recent})

    @app.get("/metrics", summary="Prometheus metrics")
    async def metrics(request: Request) -> Response:
        return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    @app.get("/v2/health", summary="Modes and meter, and what is the matter with them")
    async def health_of_all(request: Request) -> Response:
        return _json_response(health(service.runtime, meter_name))

    @app.get("/v2/health/live", summary="The event loop turns")
    async def live(request: Request) -> Response:
        return _json_response({"live": True})

    @app.get("/v2/health/ready", summary="A warm mode can answer")
    async def ready(request: Request) -> Response:
        if service.runtime.draining:
            raise Problem("draining", "the server is shutting down")
        if not is_ready(service.runtime):
            raise Problem("not-ready", "no mode can answer: restart the server")
        return _json_response({"ready": True, "live": True})

    app.router.routes.extend(page_routes())

    app.add_exception_handler(Exception, _on_error)
    app.add_exception_handler(WeNetError, _on_error)
    app.add_exception_handler(Problem, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    return Envelope(app, hosts=hosts, closing=lambda: service.runtime.draining, tokens=tokens)


SHOWN_DECISIONS = 20

_RESPONSES: Dict[Any, Dict[str, Any]] = {
    status: {"description": ", ".join(slug for slug, (code, _) in PROBLEMS.items() if code == status)}
    for status in sorted({status for status, _ in PROBLEMS.values()})
}


def _json_response(members: Any) -> Response:
    return Response(json_bytes(members), media_type="application/json")


async def _on_error(request: Request, error: Exception) -> Response:
    return problem_response(problem_of(error), request)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    slug = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "malformed-request")
    known = "POST /infer, GET /modes, /metrics, /v2/health, /v2/health/live or /v2/health/ready"
    detail = {"not-found": f"no such path: {known}"}
    text = detail.get(slug, f"{request.method} is not allowed here")
    return problem_response(Problem(slug, text, headers=error.headers), request)


def _modes(service: Service, device: Dict[str, Any]) -> Dict[str, Any]:
    """The body of GET /modes."""
    runtime, defaults, log = service.runtime, service.defaults, service.decisions.log
    forecast = runtime.forecast()  # once, so that all modes are seen at one instant
    total = sum(service.metrics.served.values())
    costs = runtime.pool.costs
    return {
        "model": service.bundle.manifest.model,
        "bundle_sha256": service.bundle.sha256,
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
        "memory_mb": _rounded(runtime.pool.memory_mb),
        "power": None if runtime.power is None else asdict(runtime.power),
        "guard": None if runtime.guard is None else asdict(runtime.guard),
        "device": device,
        "decision_log": {"dropped": log.dropped, "failure": log.failure},
        "decisions": [members_of(one) for one in log.latest(SHOWN_DECISIONS)],
        "modes": [_mode(service, mode, forecast, costs[mode.id], total) for mode in service.bundle.modes],
    }


def _device(watch: Optional[DeviceWatch]) -> Dict[str, Any]:
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


def _mode(service: Service, mode: Mode, forecast: Forecast, cost: Cost, total: int) -> Dict[str, Any]:
    profile = service.runtime.controller.profiles.get(mode.id)  # none of a mode that its memory keeps out
    percentiles = (None, None, None) if profile is None else (profile.p50_ms, profile.p95_ms, profile.p99_ms)
    served = service.metrics.served[mode.id]
    return {
        "id": mode.id,
        "groups": dict(mode.groups),
        "precision": mode.precision,
        "macs": mode.macs,
        "params": mode.params,
        "accuracy": mode.accuracy.value,
        "latency_ms": {name: _rounded(value) for name, value in zip(("p50", "p95", "p99"), percentiles)},
        "predicted_ms": _predicted(service, mode, forecast),
        "energy_mj": _rounded(None if profile is None else profile.energy_mj),
        "energy_source": "none" if profile is None else profile.energy_source,
        "resident": cost.resident,
        "out_of_service": service.runtime.pool.residency.out.get(mode.id),
        "memory_mb": _rounded(cost.memory_mb),
        "load_ms": _rounded(cost.load_ms),
        "served": served,
        "active_share": round(served / total, 4) if total else 0.0,
    }


def _predicted(service: Service, mode: Mode, forecast: Forecast) -> Optional[Dict[str, Any]]:
    """What a row is predicted to take now: half of the requests, and the share asked for."""
    controller = service.runtime.controller
    at = controller.predictor.index.get(mode.id)
    if at is None:
        return None
    share = f"p{100 * controller.attainment:g}"
    return {"p50": _rounded(forecast.medians_ms[at]), share: _rounded(forecast.bounds_ms[at])}


def _rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None else round(value, 4)
