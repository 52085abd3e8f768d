"""A client that adds as little as it can: one blocking keep-alive connection, requests made beforehand."""

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

BUFFER = 4 << 20


@dataclass(frozen=True)
class Reply:
    """What a server answered, and how long that took from before the first byte was sent to the last one read."""

    ms: float
    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """To one server on 127.0.0.1. Opened again where the server closed it."""

    def __init__(self, port: int, timeout_s: float = 60.0) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._buffer = bytearray(BUFFER)
        self._start = 0.0
        self._socket = self._opened()

    def ask(self, request: bytes) -> Reply:
        """Send one request, read its reply. Raises `OSError`."""
        self.send(request)
        return self.reply()

    def send(self, request: bytes) -> None:
        """Send one request; its reply is to be read before the next one is sent. Raises `OSError`."""
        self._start = time.perf_counter()
        self._socket.sendall(request)

    def reply(self) -> Reply:
        """Wait for the reply of what was sent. Raises `OSError`."""
        size = head_end = 0
        length: int | None = None
        headers: dict[str, str] = {}
        status = 0
        view = memoryview(self._buffer)
        while length is None or size < head_end + length:
            count = self._socket.recv_into(view[size:])
            if not count:
                raise ConnectionResetError("closed by the server")
            size += count
            if length is None:
                head_end = self._buffer.find(b"\r\n\r\n", 0, size) + 4
                if head_end >= 4:
                    status, headers = _head(bytes(self._buffer[:head_end]))
                    length = int(headers["content-length"])
        ms = (time.perf_counter() - self._start) * 1e3
        reply = Reply(ms, status, headers, bytes(self._buffer[head_end:size]))
        if headers.get("connection", "").lower() == "close":
            self.close()
            self._socket = self._opened()
        return reply

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _opened(self) -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", self._port), self._timeout_s)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        return opened


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    if "content-length" not in headers:
        raise RuntimeError(f"a reply without Content-Length, which this client does not read: {first}")
    return int(first.split(" ", 2)[1]), headers
