"""The HTTP server's life: bind, serve, drain on SIGTERM, exit."""

import asyncio
import math
import os
import signal
from types import FrameType
from typing import Callable, Optional

import uvicorn

from wenet_runtime.runtime import Runtime
from wenet_runtime.service.connections import Connections
from wenet_runtime.service.envelope import App
from wenet_runtime.service.protocol import protocol_of

POLL_S = 0.01
REPLY_S = 2  # for replies to leave once their inference is done


class Server(uvicorn.Server):
    """uvicorn with a drain.

    The first SIGTERM or SIGINT turns `ready` to 503 at once; work goes on for `drain_delay_s`, then
    is refused; accepted work finishes within `drain_timeout_s`. A second signal exits at once.
    """

    def __init__(
        self,
        app: App,
        runtime: Runtime,
        *,
        host: str,
        port: int,
        drain_delay_s: float,
        drain_timeout_s: float,
        on_ready: Callable[[], None] = lambda: None,
        on_drain: Callable[[], None] = lambda: None,
        connections: Optional[Connections] = None,
    ) -> None:
        self._connections = Connections() if connections is None else connections
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=protocol_of(self._connections),  # type: ignore[arg-type] # a class, or what makes its objects
                ws="none",  # a connection that changed its protocol would be past the token and every limit
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=math.ceil(self._connections.deadlines.idle_s),
                timeout_graceful_shutdown=REPLY_S,
            )
        )
        self._runtime = runtime
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
        self.abandoned = self._runtime.pending

    async def startup(self, sockets: "Optional[list[object]]" = None) -> None:  # type: ignore[override]
        """Begin to serve; signals are handled from here on, so now it may be announced."""
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        self._on_ready()

    def handle_exit(self, sig: int, frame: Optional[FrameType]) -> None:
        """Signal handler: drain on the first signal, exit on the second."""
        if self._runtime.draining:
            os._exit(130 if sig == signal.SIGINT else 143)
        self._runtime.drain()
        if self._loop is None:
            self.should_exit = True
        else:  # wakes the loop, which may sleep in its selector
            self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        self._on_drain()
        self._drain = asyncio.ensure_future(self._finish())

    async def _finish(self) -> None:
        await asyncio.sleep(self._delay_s)
        self._runtime.refuse()
        end = asyncio.get_running_loop().time() + self._timeout_s
        while self._runtime.pending and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(POLL_S)
        self.should_exit = True
