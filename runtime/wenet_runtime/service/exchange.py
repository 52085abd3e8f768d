"""One request's body in one piece, and its reply in one write, where uvicorn hands both over bit by bit.

A piece costs a turn of the event loop and a copy of what is there already, a write costs a system call here and another
wake-up of the client.
"""

from typing import Any, List, MutableMapping, Optional

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from wenet_runtime.service.bodies import MAX_BODY_BYTES

Message = MutableMapping[str, Any]
EXCHANGE = "wenet.exchange"  # its key in a scope
CLOSE = (b"connection", b"close")
MOST_PIECES = 256
JOINED_BYTES = 64 << 10  # a longer body is written behind its head rather than copied


class Exchange:
    """ASGI's two ends of a request, in place of those of its cycle.

    Args:
        cycle: uvicorn's own for this request.
        behind: it was sent ahead, and waits until those before it are answered.
    """

    def __init__(self, cycle: RequestResponseCycle, *, behind: bool = False) -> None:
        self._cycle = cycle
        self._behind = behind
        self._pieces: List[bytes] = []
        self._rest: Optional[bytearray] = None  # where there are too many pieces: each takes more than its bytes
        self._size = 0
        self._start: Optional[Message] = None
        self.handed_over = False

    def add(self, piece: bytes) -> None:
        """A piece of the body has come; not to be called once it was handed over."""
        self._size += len(piece)
        if self._rest is not None:
            self._rest += piece
        elif len(self._pieces) < MOST_PIECES:
            self._pieces.append(piece)
        else:
            self._rest = bytearray().join([*self._pieces, piece])
            self._pieces = []
        if self._size > MAX_BODY_BYTES:  # who reads it learns so, and need not wait for the rest
            self._cycle.flow.pause_reading()
            self._cycle.message_event.set()
        elif self._behind and self._size > HIGH_WATER_LIMIT:  # until somebody asks for it
            self._cycle.flow.pause_reading()

    async def receive(self) -> Message:
        """The whole body first, or what came of one that is too large; then whatever the cycle says."""
        cycle = self._cycle
        if self.handed_over:
            return await cycle.receive()  # type: ignore[return-value]
        if cycle.waiting_for_100_continue and not cycle.transport.is_closing():
            cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        self._behind = False
        while cycle.more_body and not self._over() and self._size <= MAX_BODY_BYTES:
            cycle.flow.resume_reading()
            await cycle.message_event.wait()
            cycle.message_event.clear()
        self.handed_over = True
        if self._over():
            return {"type": "http.disconnect"}
        cycle.message_event.clear()
        return {"type": "http.request", "body": self._taken(), "more_body": cycle.more_body}

    def _taken(self) -> bytes:
        pieces, rest = self._pieces, self._rest
        self._pieces, self._rest = [], None
        if rest is not None:
            return bytes(rest)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _over(self) -> bool:
        return self._cycle.disconnected or self._cycle.response_complete

    async def send(self, message: Message) -> None:
        """Keep the head until its body is there; a reply that is not whole goes the cycle's way."""
        cycle = self._cycle
        if message["type"] == "http.response.start" and self._start is None and not cycle.response_started:
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            if self._write(start, message):
                return
            await cycle.send(start)  # type: ignore[arg-type]
        await cycle.send(message)  # type: ignore[arg-type]

    def _write(self, start: Message, message: Message) -> bool:
        """Write a whole reply at once; False if it is none, or cannot be written now."""
        cycle = self._cycle
        body: bytes = message.get("body", b"")
        headers = [*cycle.default_headers, *start["headers"]]
        whole = not message.get("more_body", False) and (b"content-length", b"%d" % len(body)) in headers
        if cycle.transport.is_closing():
            cycle.disconnected = True
        if not whole or cycle.scope["method"] == "HEAD" or cycle.disconnected or cycle.flow.write_paused:
            return False
        if CLOSE in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            headers.append(CLOSE)
        lines = b"".join([b"%b: %b\r\n" % field for field in headers])
        if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
            raise RuntimeError("a header's value has more than one line")
        head = b"%b%b\r\n" % (STATUS_LINE[start["status"]], lines)
        if len(body) <= JOINED_BYTES:
            cycle.transport.write(head + body)
        else:
            cycle.transport.write(head)
            cycle.transport.write(body)
        cycle.response_started = cycle.response_complete = True
        self._pieces, self._rest = [], None  # of a body that nobody asked for
        cycle.message_event.set()
        if not cycle.keep_alive and not cycle.more_body:  # otherwise its connection waits for what still comes
            cycle.transport.close()
        cycle.on_response()
        return True
