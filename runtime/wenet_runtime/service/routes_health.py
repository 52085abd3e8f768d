"""GET /v2/health…: whether the server lives, and whether it, its model or one mode can answer."""

from typing import List

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wenet_runtime.service.encoding import json_response
from wenet_runtime.service.health import health, is_ready
from wenet_runtime.service.inference import Service
from wenet_runtime.service.options import path_mode
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.serving import Serving


def health_routes(service: Service, meter_name: str) -> List[Route]:
    """The routes.

    Args:
        service: what is asked about.
        meter_name: which of the meters measures.
    """

    async def health_of_all(request: Request) -> Response:
        return json_response({**health(service.runtime, meter_name), "bundle": service.bundle_state()})

    async def live(request: Request) -> Response:
        return json_response({"live": True})

    async def ready(request: Request) -> Response:
        check_ready(service.active)
        return json_response({"ready": True, "live": True})

    async def model_ready(request: Request) -> Response:
        serving = service.active
        mode = path_mode(request.path_params, serving.bundle.manifest)
        check_ready(serving)
        there = serving.runtime.pool.residency
        if mode is not None and (mode not in there.resident or mode in there.out):
            raise Problem("not-ready", f"mode {mode} is {'out of service' if mode in there.out else 'not resident'}")
        return json_response({"name": serving.bundle.manifest.model, "ready": True})

    return [
        Route("/v2/health", health_of_all, methods=["GET"]),
        Route("/v2/health/live", live, methods=["GET"]),
        Route("/v2/health/ready", ready, methods=["GET"]),
        Route("/v2/models/{model}/ready", model_ready, methods=["GET"]),
        Route("/v2/models/{model}/versions/{version}/ready", model_ready, methods=["GET"]),
    ]


def check_ready(serving: Serving) -> None:
    """Whether a request could be answered now. Raises `Problem` draining or not-ready."""
    if serving.runtime.draining:
        raise Problem("draining", "the server is shutting down")
    if not is_ready(serving.runtime):
        raise Problem("not-ready", serving.runtime.trouble or "no mode can answer: restart the server")
