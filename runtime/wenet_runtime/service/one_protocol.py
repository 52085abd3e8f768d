"""HTTP/1.1 and nothing else: who asks for another protocol is answered in this one.

And the reply of a connection that has no request to answer.
"""

from typing import Any, Iterable, List, Tuple

import httptools
from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from wenet_runtime.service.envelope import new_request_id
from wenet_runtime.service.problems import Problem, problem_response

WISHES = (b"upgrade", b"http2-settings")  # fields, and what `Connection` lists, of a request for another protocol


class OneProtocol(HttpToolsProtocol):
    """uvicorn's protocol, in which a wish for another one changes nothing.

    The parser takes a request with such a wish to end with its head, and what follows to be no HTTP. It is begun anew
    on the same head without the wish: otherwise the body would be read as the next request.

    Attributes:
        rereads: the request that begins is the one whose head was read before.
    """

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.rereads = False

    def feed(self, data: bytes) -> None:
        """Parse. Raises what the parser does, but for a wish for another protocol."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                method, version = self.parser.get_method(), self.parser.get_http_version().encode("ascii")
                head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, wishless(self.headers))
                data = head + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.rereads = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field: blanks behind a value are no part of it."""
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """The whole head."""
        self.rereads = False
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # its client does not know that
        super().on_headers_complete()


def wishless(headers: Iterable[Tuple[bytes, bytes]]) -> bytes:
    """The lines of a head, names in lower case, without those by which another protocol is asked for."""
    lines: List[bytes] = []
    for name, value in headers:
        if name == b"connection":
            value = b", ".join(one for one in map(bytes.strip, value.split(b",")) if one.lower() not in WISHES)
        if name not in WISHES:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def whole_reply(problem: Problem, default_headers: Iterable[Tuple[bytes, bytes]]) -> bytes:
    """A problem as the last reply of a connection, under an id of its own."""
    request_id = new_request_id()
    reply = problem_response(problem, Request({"type": "http", "headers": [], "wenet.request_id": request_id}))
    more = ((b"x-request-id", request_id.encode("ascii")), (b"connection", b"close"))
    fields = [*default_headers, *reply.raw_headers, *more]
    head = b"".join(b"%b: %b\r\n" % field for field in fields)
    return b"%b%b\r\n%b" % (STATUS_LINE[reply.status_code], head, bytes(reply.body))
