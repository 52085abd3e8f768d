"""One connection: when each of its requests began, how large a head may be, and an end to slow clients.

uvicorn's protocol on httptools, which stamps nothing, limits nothing and waits for ever. What is overridden here are
its parser's callbacks and the places where it answers by itself.
"""

import asyncio
from functools import partial
from typing import Any, Callable, Dict, Optional, Tuple

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from wenet_runtime.service.connections import Connections
from wenet_runtime.service.exchange import EXCHANGE, Exchange
from wenet_runtime.service.one_protocol import OneProtocol, whole_reply
from wenet_runtime.service.problems import Problem

MAX_HEAD_BYTES = 16 << 10
MAX_FIELDS = 100
MAX_PIPELINED = 16

# What a connection reads at the moment.
NOTHING, HEAD, BODY = range(3)


def protocol_of(connections: Connections) -> Callable[..., "Connection"]:
    """What uvicorn calls for each connection, as its `http` setting."""
    return partial(Connection, connections=connections)


class _Refused(Exception):
    """Leaves the parser from within one of its callbacks."""


class Connection(OneProtocol):
    """Reads requests and answers them in their order.

    Args:
        config, server_state, app_state, _loop: given by uvicorn.
        connections: those of the server, this one among them.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: Dict[str, Any],
        _loop: Optional[asyncio.AbstractEventLoop] = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state, _loop=_loop)
        self._connections = connections
        self._deadlines = connections.deadlines
        self._clock = connections.clock
        self._reads = NOTHING
        self._read_s = 0.0  # when the newest bytes were read
        self._begun_s = 0.0  # when the first of the present request was
        self._quiet_s = 0.0  # when it came, or was answered last
        self._due_s = 0.0  # by when the client must have sent what is waited for
        self._fruitless = 0  # bytes read since anything came of any
        self._exchange: Optional[Exchange] = None  # of the newest request
        self._answered: Optional[RequestResponseCycle] = None  # what is being answered: the oldest request
        self._unsent = 0
        self._sent_by_s = 0.0
        self._problem: Optional[Problem] = None
        self._deaf = False  # takes nothing more
        self._dismissed = False  # nor does it answer anything more

    # What happens to the connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        now_s = self._clock()
        self._due_s = now_s + self._deadlines.first_byte_s
        self._quiet_s = now_s
        self._sent_by_s = now_s + self._deadlines.reply_s
        if not self._connections.admit(self):
            self._dismiss(Problem("queue-full", "too many connections are open: come back later"))

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """It is over, for every request of it."""
        self._connections.lost(self)
        for cycle in (self._answered, *(ahead for ahead, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of one or more requests."""
        if self._deaf:
            return
        self._read_s = self._clock()
        self._fruitless += len(data)
        self._unset_keepalive_if_required()
        try:
            self.feed(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        if not self._deaf and self._fruitless > MAX_HEAD_BYTES and self._reads != NOTHING:
            self._refuse(_too_large())

    # What the parser finds.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(Problem("malformed-request", "too many requests are sent ahead: wait for answers"))
        super().on_message_begin()
        self._reads = HEAD
        if not self.rereads:
            self._begun_s = self._read_s
        self._due_s = self._begun_s + self._deadlines.head_s
        self.scope["wenet.start_s"] = self._begun_s  # type: ignore[typeddict-unknown-key]

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head; those after a chunked body mean nothing here."""
        if self._reads != HEAD:
            return
        super().on_header(name, value)
        if len(self.headers) > MAX_FIELDS:
            self._stop(_too_large())

    def on_headers_complete(self) -> None:
        """The application may begin."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._stop(_too_large())
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._stop(Problem("malformed-request", "this is no proxy: CONNECT is not taken"))
            return
        super().on_headers_complete()  # raises for a path that is none: then there is no body of anything
        # Whatever the head says of it: older uvicorns leave that to the application.
        self.cycle.keep_alive = self.cycle.keep_alive and self.parser.should_keep_alive()
        if not self.pipeline:
            self._answered = self.cycle
        self._exchange = Exchange(self.cycle, behind=bool(self.pipeline))
        self.scope[EXCHANGE] = self._exchange  # type: ignore[literal-required] # the task has not begun yet
        self._reads = BODY
        self._fruitless = 0
        self._due_s = self._begun_s + self._deadlines.request_s

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._fruitless = 0
        if self._exchange is None or self._exchange.handed_over:
            super().on_body(body)
        elif not self.cycle.response_complete:
            self._exchange.add(body)

    def on_message_complete(self) -> None:
        """The whole request is there."""
        if self.parser.should_upgrade():
            return
        self._reads = NOTHING
        self._fruitless = 0
        self._due_s = self._read_s + self._deadlines.idle_s  # counts if it was answered before it ended
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """One reply is written."""
        self._quiet_s = self._clock()
        if self._reads == NOTHING:
            self._due_s = self._quiet_s + self._deadlines.idle_s
        self._answered = self.pipeline[-1][0] if self.pipeline else None
        if self._reads == BODY and self.cycle.response_complete and not self.cycle.keep_alive:
            self._linger(self._deadlines.drop_s)
        elif self._deaf and not self.pipeline:
            self.transport.close()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """The parser gave up, or was stopped."""
        problem, self._problem = self._problem, None
        self._refuse(problem or Problem("malformed-request", "this is no proper HTTP/1.1 request"))

    # What the connections' clock and limit ask.

    def quiet(self) -> Optional[Tuple[bool, float]]:
        """See `Watched`."""
        # While a body comes its own request is the present one: nothing else is answered, unless it was sent ahead.
        answers = bool(self.pipeline) or (self._answering() and self._reads != BODY)
        if self._deaf or answers:
            return None
        reads = self._reads != NOTHING
        return reads, max(self._quiet_s, self._begun_s) if reads else self._quiet_s

    def give_way(self) -> None:
        """See `Watched`."""
        self._deaf = True
        self.transport.close()

    def abort(self) -> None:
        """See `Watched`."""
        self.transport.abort()

    def check(self, now_s: float) -> None:
        """See `Watched`."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._sent_by_s = now_s + self._deadlines.reply_s
        self._unsent = unsent
        if now_s >= self._sent_by_s or (self._dismissed and now_s >= self._due_s):
            self.transport.abort()  # closing would wait until all is sent
        elif self._deaf or self.transport.is_closing():
            return
        elif self.flow.read_paused:  # the time in which nothing was read is not the client's
            self._due_s = max(self._due_s, now_s + self._deadlines.request_s)
        elif now_s < self._due_s:
            return
        elif self._reads != NOTHING:
            self._refuse(Problem("body-timeout", "the request was not received in time: send it in one go"))
        elif not self._answering():
            self.transport.close()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _stop(self, problem: Problem) -> None:
        self._problem = problem
        raise _Refused(problem.detail)  # reaches `send_400_response`

    def _refuse(self, problem: Problem) -> None:
        """Take nothing more. What was asked before is answered; only if nothing was, the client is told why."""
        self._deaf = True
        if self._reads == BODY:
            if self.pipeline:
                self.pipeline.popleft()  # its own request is the newest
                return
            if self.cycle.response_started:
                self.transport.close()
                return
            self.scope["wenet.dismissed"] = True  # type: ignore[typeddict-unknown-key] # it is told, and counted, here
            self.cycle.disconnected = True  # the application learns that no more will come
            self.cycle.message_event.set()
        elif self._answering():
            return
        self._dismiss(problem)

    def _dismiss(self, problem: Problem) -> None:
        """Write a problem, end this side, and give the client a moment to read it."""
        self._connections.refused(problem.slug)
        if self.transport.is_closing():
            self._linger(self._deadlines.linger_s)
            return
        self.transport.write(whole_reply(problem, self.server_state.default_headers))
        self._linger(self._deadlines.linger_s)

    def _linger(self, most_s: float) -> None:
        """End this side, and drop what still comes: closed before it has come, a connection takes its reply along."""
        self._deaf = self._dismissed = True
        self._due_s = self._clock() + most_s
        self._connections.leave(self)
        if self.transport.is_closing():
            return
        self.flow.resume_reading()  # so that its end is seen
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()


def _too_large() -> Problem:
    return Problem(
        "head-too-large",
        f"a request's head may have {MAX_HEAD_BYTES >> 10} KiB and {MAX_FIELDS} fields: send less of it",
    )
