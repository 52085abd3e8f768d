"""What surrounds every request: its clock, its id, the Host it may name, and whether it may be answered."""

import os
import re
import time
from typing import Any, Awaitable, Callable, FrozenSet, List, MutableMapping, Optional, Sequence, Tuple

from starlette.requests import Request

from wenet_runtime.service.exchange import EXCHANGE
from wenet_runtime.service.paths import path_parameters
from wenet_runtime.service.problems import Problem, problem_response, timed
from wenet_runtime.service.tokens import Tokens, refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Ended = Callable[[Scope], None]  # told of a request once its reply is sent; `wenet.reply` in it is how that began

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))


class Envelope:
    """ASGI middleware around the whole application.

    Args:
        app: what it surrounds.
        hosts: names that `Host` may carry, None for any. On a loopback bind this keeps other
            sites' pages from reaching the daemon through DNS rebinding.
        closing: whether replies should end their connection, because the server drains.
        tokens: of which a request must bring one; None without a token file.
        refused: told the slug of each problem that is answered here.
        ended: told of every request that is over.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: Optional[FrozenSet[str]],
        closing: Callable[[], bool],
        tokens: Optional[Tokens] = None,
        refused: Callable[[str], None] = lambda slug: None,
        ended: Sequence[Ended] = (),
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._closing = closing
        self._tokens = tokens
        self._refused_with = refused
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope.pop(EXCHANGE, None)  # it holds the scope: together they would wait for the collector
        if exchange is not None:
            receive, send = exchange.receive, exchange.send
        scope.setdefault("wenet.start_s", time.monotonic())  # the protocol has stamped its first byte
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        valid = len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) is not None
        request_id = given[0].decode("ascii") if valid else new_request_id()
        scope["wenet.request_id"] = request_id
        scope["wenet.by_token"] = self._tokens is not None

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers: List[Tuple[bytes, bytes]] = list(message["headers"])
                headers.append((b"x-request-id", request_id.encode("ascii")))
                if self._closing():
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
                scope["wenet.reply"] = message
            await send(message)

        # Before any of the body is asked for, and by the very path that the router will look at.
        problem = self._refused(scope["headers"], bool(given) and not valid)
        problem = problem or refusal(self._tokens, scope["path"], scope["headers"])
        try:
            if problem is None:
                await self._app(scope, receive, send_with_id)
            else:
                self._refused_with(problem.slug)
                if scope["method"] == "POST" and path_parameters(scope["path"]) is not None:
                    timed(problem, scope)
                await problem_response(problem, Request(scope))(scope, receive, send_with_id)
        finally:
            if "wenet.dismissed" not in scope:  # otherwise its connection has told what became of it
                for told in self._ended:
                    told(scope)

    def _refused(self, headers: List[Tuple[bytes, bytes]], bad_id: bool) -> Optional[Problem]:
        if bad_id:
            return Problem("bad-header", "X-Request-Id takes 1 to 128 of A-Z a-z 0-9 . _ : -, and is sent once")
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) > 1:
            return Problem("bad-header", "header 'host' is given twice: send it once")
        host = hosts[0].decode("latin-1").lower() if hosts else ""
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if self._hosts is not None and name not in self._hosts:
            return Problem("bad-header", "this Host is not served on a loopback address: name it with --allowed-host")
        return None


def new_request_id() -> str:
    """An id that no other request has: 16 hexadecimal digits."""
    return os.urandom(8).hex()
