"""GET /modes, /metrics and /openapi.json: what the server is doing, and how it is asked."""

from typing import List, Optional

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wenet_runtime.service.device_watch import DeviceWatch
from wenet_runtime.service.encoding import json_response
from wenet_runtime.service.inference import Service
from wenet_runtime.service.metrics import CONTENT_TYPE
from wenet_runtime.service.modes import device_members, modes_members
from wenet_runtime.service.openapi import openapi_json


def state_routes(service: Service, watch: Optional[DeviceWatch]) -> List[Route]:
    """The routes.

    Args:
        service: what is asked about.
        watch: what is known of the device's heat and power setting; None if nothing is.
    """

    async def modes(request: Request) -> Response:
        # The trends of all zones take some milliseconds on a small board: not on the event loop.
        device = await run_in_threadpool(device_members, watch)
        recent = await run_in_threadpool(service.recent.members)
        return json_response({**modes_members(service, device), "recent": recent})

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(request: Request) -> Response:
        return Response(openapi_json(), media_type="application/json")

    return [
        Route("/modes", modes, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
    ]
