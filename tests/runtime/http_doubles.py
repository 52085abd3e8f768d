"""A server that answers as a test says, and remembers what it was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

Scripted = Tuple[int, Mapping[str, str], bytes]


class Asked(NamedTuple):
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def json_reply(members: Any, status: int = 200, headers: Optional[Mapping[str, str]] = None) -> Scripted:
    """A reply of JSON."""
    return status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(members).encode()


def problem(slug: str, status: int, detail: str = "it cannot be") -> Scripted:
    """A reply that is a problem."""
    return json_reply({"type": f"urn:wenet:problem:{slug}", "status": status, "detail": detail}, status)


class ScriptedServer(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1 until it is closed."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Callable[[Asked], Scripted]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: List[Asked] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        server = self.server
        assert isinstance(server, ScriptedServer)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers: Dict[str, str] = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        server.asked.append(asked)
        status, more, content = server.answer(asked)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""
