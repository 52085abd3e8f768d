"""POST …/infer, and what Open Inference Protocol V2 tells of the server and its model."""

from typing import List

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wenet_runtime.service.encoding import json_response
from wenet_runtime.service.inference import Service
from wenet_runtime.service.inference import infer as infer_within_budget
from wenet_runtime.service.metadata import model_metadata, server_metadata
from wenet_runtime.service.options import path_mode

MODEL = "/v2/models/{model}"
MODE = MODEL + "/versions/{version}"


def v2_routes(service: Service) -> List[Route]:
    """The routes, those of inference first."""

    async def infer(request: Request) -> Response:
        return await infer_within_budget(service, request)

    async def server(request: Request) -> Response:
        return json_response(server_metadata())

    async def metadata(request: Request) -> Response:
        bundle = service.active.bundle
        path_mode(request.path_params, bundle.manifest)
        return json_response(model_metadata(bundle))

    async def stats(request: Request) -> Response:
        serving = service.active
        bundle = serving.bundle
        mode = path_mode(request.path_params, bundle.manifest)
        modes = [one.id for one in bundle.modes] if mode is None else [mode]
        return json_response({"model_stats": serving.statistics.members(bundle.manifest.model, modes)})

    return [
        Route("/infer", infer, methods=["POST"]),
        Route(MODEL + "/infer", infer, methods=["POST"]),
        Route(MODE + "/infer", infer, methods=["POST"]),
        Route("/v2", server, methods=["GET"]),
        Route("/v2/models/stats", stats, methods=["GET"]),  # before a model of that name
        Route(MODEL, metadata, methods=["GET"]),
        Route(MODE, metadata, methods=["GET"]),
        Route(MODEL + "/stats", stats, methods=["GET"]),
        Route(MODE + "/stats", stats, methods=["GET"]),
    ]
