"""The shortest way to inference: its paths are told apart here, and only the rest goes through the framework's router.

The framework's layers take about as long as a small network does.
"""

from typing import Any, Mapping

from starlette.datastructures import QueryParams
from starlette.requests import Request

from wenet_runtime.service.envelope import App, Receive, Scope, Send
from wenet_runtime.service.inference import Service, infer
from wenet_runtime.service.paths import path_parameters

_NO_QUERY = QueryParams()


class Direct:
    """ASGI middleware in front of the router.

    Args:
        app: all other routes, those of inference among them for whatever asks with another method.
        service: what answers.
    """

    def __init__(self, app: App, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parameters = path_parameters(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if parameters is None:
            await self._app(scope, receive, send)
            return
        scope["path_params"] = parameters
        reply = await infer(self._service, InferRequest(scope, receive, send))
        await send({"type": "http.response.start", "status": reply.status_code, "headers": reply.raw_headers})
        await send({"type": "http.response.body", "body": reply.body})


class InferRequest(Request):
    """A request whose headers are looked up more than once: they are decoded once. The first of a name counts."""

    @property
    def headers(self) -> Mapping[str, str]:  # type: ignore[override]
        """By name in lower case."""
        if not hasattr(self, "_by_name"):
            fields = reversed(self.scope["headers"])
            self._by_name = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields}
        return self._by_name

    @property
    def query_params(self) -> Any:
        """See `Request`."""
        return super().query_params if self.scope["query_string"] else _NO_QUERY
