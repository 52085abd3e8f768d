"""A real server on a real socket, in a thread of the test's process."""

import asyncio
import contextlib
import json
import signal
import socket
import threading
from typing import Any, Callable, Iterator, List, Optional

import httpx

from tests.runtime.fakes import PATIENCE_S, SLOW_MS, SettableBackend, make_service, ones, v2_body
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.app import create_app
from wenet_runtime.service.connections import Connections
from wenet_runtime.service.envelope import App
from wenet_runtime.service.server import Server

BODY = json.dumps(v2_body(ones(value=7.0))).encode()


class Running:
    """A server on a free port, in a thread of its own."""

    def __init__(
        self,
        bundle: Bundle,
        backend: SettableBackend,
        *,
        drain_timeout_s: float = PATIENCE_S,
        app: Optional[App] = None,
        on_drain: Callable[[], None] = lambda: None,
        connections: Optional[Connections] = None,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    ) -> None:
        self.service = make_service(bundle, backend, medians_ms=SLOW_MS)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.listener.listen()  # so that clients may come before the server turns
        self.server = Server(
            create_app(self.service) if app is None else app,
            self.service.runtime,
            host="127.0.0.1",
            port=self.port,
            drain_delay_s=0.0,
            drain_timeout_s=drain_timeout_s,
            on_drain=on_drain,
            connections=connections,
        )
        self._new_loop = new_loop
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self.port}"
        assert httpx.get(f"{self.url}/v2/health/live").status_code == 200

    def _run(self) -> None:
        loop = self._new_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self.server.serve(sockets=[self.listener]))
        finally:
            loop.close()

    def drain(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)

    def ended(self) -> bool:
        self._thread.join(PATIENCE_S)
        return not self._thread.is_alive()

    def raw(self, data: bytes, *, leave: bool = False) -> bytes:
        """Send bytes on a connection, end it from this side or not, and read what comes until the server ends it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            connection.sendall(data)
            if leave:
                connection.shutdown(socket.SHUT_WR)
            found = b""
            for piece in iter(lambda: connection.recv(65_536), b""):
                found += piece
        return found


@contextlib.contextmanager
def servers(bundle: Bundle, backend: SettableBackend) -> Iterator[Callable[..., Running]]:
    """Starts servers, as `Running` does, and ends them."""
    started: List[Running] = []

    def begin(**how: Any) -> Running:
        started.append(Running(bundle, backend, **how))
        return started[-1]

    yield begin
    backend.release()
    for one in started:
        one.server.should_exit = True
        assert one.ended()
        one.listener.close()
        one.service.runtime.close(timeout_s=PATIENCE_S)


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(
        [b"POST /infer HTTP/1.1", b"Host: localhost", b"Content-Type: application/json", *lines, b"", b""]
    )
