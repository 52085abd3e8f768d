"""The HTTP server's life: bind, serve, drain on SIGTERM, exit."""

import asyncio
import math
import os
import signal
from types import FrameType
from typing import Callable, Optional, Protocol

import uvicorn

from wenet_runtime.service.connections import Connections
from wenet_runtime.service.envelope import App
from wenet_runtime.service.protocol import protocol_of
from wenet_runtime.service.tls import Tls

POLL_S = 0.01
REPLY_S = 2  # for replies to leave once their inference is done


class Work(Protocol):
    """What is drained: a runtime, or several of them; see `Runtime` for its members."""

    draining: bool

    @property
    def pending(self) -> int: ...

    def drain(self) -> None: ...

    def refuse(self) -> None: ...


class Beside(Protocol):
    """Another server in the same event loop."""

    def start(self) -> None: ...

    async def stop(self) -> None: ...


def config_of(
    app: App, connections: Connections, *, host: str = "127.0.0.1", port: int = 0, tls: Optional[Tls] = None
) -> uvicorn.Config:
    """How every server of ours serves."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol_of(connections),  # type: ignore[arg-type] # a class, or what makes its objects
        ws="none",  # a connection that changed its protocol would be past the token and every limit
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is who is connected: anybody can write X-Forwarded-For
        timeout_keep_alive=math.ceil(connections.deadlines.idle_s),
        timeout_graceful_shutdown=REPLY_S,
        ssl_certfile=None if tls is None else str(tls.cert),
        ssl_keyfile=None if tls is None else str(tls.key),
    )


class Server(uvicorn.Server):
    """uvicorn with a drain.

    The first SIGTERM or SIGINT turns `ready` to 503 at once; work goes on for `drain_delay_s`, then
    is refused; accepted work finishes within `drain_timeout_s`. A second signal exits at once.
    """

    def __init__(
        self,
        app: App,
        work: Work,
        *,
        host: str,
        port: int,
        drain_delay_s: float,
        drain_timeout_s: float,
        on_ready: Callable[[], None] = lambda: None,
        on_drain: Callable[[], None] = lambda: None,
        connections: Optional[Connections] = None,
        tls: Optional[Tls] = None,
        beside: Optional[Beside] = None,
    ) -> None:
        self._connections = Connections() if connections is None else connections
        super().__init__(config_of(app, self._connections, host=host, port=port, tls=tls))
        self._work = work
        self._beside = beside
        self._signalled = False
        self._delay_s = drain_delay_s
        self._timeout_s = drain_timeout_s
        self._on_ready = on_ready
        self._on_drain = on_drain
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._drain: Optional[asyncio.Task[None]] = None
        self.abandoned = 0

    async def serve(self, sockets: "Optional[list[object]]" = None) -> None:  # type: ignore[override]
        """Serve until drained."""
        self._loop = asyncio.get_running_loop()
        self._connections.watch(self._loop)
        try:
            await super().serve(sockets=sockets)  # type: ignore[arg-type]
        finally:
            self._connections.close()
            if self._beside is not None:
                await self._beside.stop()
        self.abandoned = self._work.pending

    async def startup(self, sockets: "Optional[list[object]]" = None) -> None:  # type: ignore[override]
        """Begin to serve; signals are handled from here on, so now it may be announced."""
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        if self._beside is not None:
            self._beside.start()
        self._on_ready()

    def handle_exit(self, sig: int, frame: Optional[FrameType]) -> None:
        """Signal handler: drain on the first signal, exit on the second."""
        if self._signalled:
            os._exit(130 if sig == signal.SIGINT else 143)
        self._signalled = True
        if self._work.draining:  # it was asked for over HTTP before
            return
        self._work.drain()
        if self._loop is None:
            self.should_exit = True
        else:  # wakes the loop, which may sleep in its selector
            self._loop.call_soon_threadsafe(self._begin_drain)

    def drain(self) -> None:
        """Do what the first signal does; on the event loop."""
        self._work.drain()
        self._begin_drain()

    def _begin_drain(self) -> None:
        self._on_drain()
        self._drain = asyncio.ensure_future(self._finish())

    async def _finish(self) -> None:
        await asyncio.sleep(self._delay_s)
        self._work.refuse()
        end = asyncio.get_running_loop().time() + self._timeout_s
        while self._work.pending and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(POLL_S)
        self.should_exit = True
