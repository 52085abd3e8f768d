"""The application: the routes of every part joined, and how errors leave it."""

from typing import FrozenSet, List, Optional, Sequence

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from wenet_runtime import __version__
from wenet_runtime.errors import WeNetError
from wenet_runtime.service.device_watch import DeviceWatch
from wenet_runtime.service.direct import Direct
from wenet_runtime.service.envelope import App, Ended, Envelope
from wenet_runtime.service.inference import Service
from wenet_runtime.service.pages import page_routes
from wenet_runtime.service.problems import Problem, problem_of, problem_response
from wenet_runtime.service.routes_health import health_routes
from wenet_runtime.service.routes_state import state_routes
from wenet_runtime.service.routes_v2 import v2_routes
from wenet_runtime.service.tokens import Tokens


def create_app(
    service: Service,
    *,
    hosts: Optional[FrozenSet[str]] = None,
    watch: Optional[DeviceWatch] = None,
    tokens: Optional[Tokens] = None,
    meter_name: str = "",
    more: Sequence[BaseRoute] = (),
    ended: Sequence[Ended] = (),
) -> App:
    """Build the ASGI application.

    Args:
        service: what it serves.
        hosts: names that `Host` may carry; None for any.
        watch: what is known of the device's heat and power setting; None if nothing is.
        tokens: of which a request must bring one; None without a token file.
        meter_name: which of the meters measures.
        more: further routes.
        ended: what is told of every request that is over.
    """
    routes: List[BaseRoute] = [
        *v2_routes(service),
        *health_routes(service, meter_name),
        *state_routes(service, watch),
        *page_routes(),
        *more,
    ]
    return enveloped(service, routes, hosts=hosts, tokens=tokens, infers=True, ended=ended)


def enveloped(
    service: Service,
    routes: Sequence[BaseRoute],
    *,
    hosts: Optional[FrozenSet[str]],
    tokens: Optional[Tokens],
    infers: bool = False,
    ended: Sequence[Ended] = (),
) -> App:
    """Routes as an application of their own, see `create_app`; `infers`: those of inference are among them."""
    # It makes no documents of its own: bodies here are no models of pydantic, `openapi` says what they are.
    app = FastAPI(
        title="wenet-runtime",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        routes=list(routes),
        exception_handlers={
            Exception: _on_error,
            WeNetError: _on_error,
            Problem: _on_error,
            HTTPException: _on_http_error,
        },
    )
    # A path is what it says: /modes/ is another one, and no reply leads to a Host that the client named.
    app.router.redirect_slashes = False
    inner: App = Direct(app, service) if infers else app
    return Envelope(
        inner,
        hosts=hosts,
        closing=lambda: service.runtime.draining,
        tokens=tokens,
        refused=service.metrics.failed,
        ended=ended,
    )


async def _on_error(request: Request, error: Exception) -> Response:
    return problem_response(problem_of(error), request)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        text = "no such path: GET /openapi.json lists them, POST /infer is the one for answers"
        return problem_response(Problem("not-found", text), request)
    if error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        text = f"{request.method} is not allowed here: use {allowed}"
        return problem_response(Problem("method-not-allowed", text, headers={"Allow": allowed}), request)
    return problem_response(Problem("malformed-request", "the request cannot be understood"), request)
