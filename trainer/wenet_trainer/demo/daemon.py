"""The daemon as a person would start it, and a client that posts images to it."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from wenet_trainer.errors import DemoError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0


@dataclass(frozen=True)
class Answer:
    """What came back for one image.

    Attributes:
        status: HTTP status; mode and reason are empty unless it is 200.
        latency_ms: end to end, as the server measured it; client_ms: as the client did.
        label: the best class; met: whether the budget held, None without one.
    """

    status: int
    mode: str
    reason: str
    latency_ms: float
    client_ms: float
    label: str
    met: bool | None


class Daemon:
    """A running `wenet-runtime`, a context manager.

    Args:
        bundle: what it serves.
        options: further flags.
        log: file for its messages.
    """

    def __init__(self, bundle: Path, options: Sequence[str], log: Path) -> None:
        self._log = log
        self.command = ["wenet-runtime", "--bundle", str(bundle), "--port", "0", *options]
        with log.open("wb") as messages:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wenet_runtime.cli", *self.command[1:]], stdout=messages, stderr=messages
            )
        self.port = self._wait_until_serving()

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """SIGTERM, wait for the drain, return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_TIMEOUT_S)

    def _wait_until_serving(self) -> int:
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            announced = re.search(r"serving .* on http://[^ ]*:(\d+) ", self._log.read_text())
            if announced:
                return int(announced.group(1))
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        self._process.kill()
        raise DemoError(f"the daemon did not start; its last words:\n{self._log.read_text()[-2000:]}")


class Client:
    """One keep-alive connection to a daemon."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.connect()
        # The head and the body are two writes; with Nagle's algorithm the second would wait.
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def modes(self) -> dict[str, Any]:
        """GET /modes."""
        self._connection.request("GET", "/modes")
        members: dict[str, Any] = json.loads(self._connection.getresponse().read())
        return members

    def post(self, png: bytes, *, budget_ms: float | None = None, mode: str | None = None) -> Answer:
        """POST /infer with one PNG image."""
        headers = {"Content-Type": "image/png"}
        if budget_ms is not None:
            headers["WeNet-Budget-Ms"] = f"{budget_ms:.3f}"
        if mode is not None:
            headers["WeNet-Mode"] = mode
        start = time.perf_counter()
        self._connection.request("POST", "/infer?top_k=1", png, headers)
        reply = self._connection.getresponse()
        body = reply.read()
        client_ms = (time.perf_counter() - start) * 1e3
        if reply.status not in (200, 503, 504):
            raise DemoError(f"the daemon answered {reply.status}: {body[:300]!r}")
        members = json.loads(body)
        met = reply.headers.get("WeNet-Budget-Met")
        return Answer(
            status=reply.status,
            mode=reply.headers.get("WeNet-Mode", ""),
            reason=reply.headers.get("WeNet-Mode-Reason", ""),
            latency_ms=float(reply.headers.get("WeNet-Latency-Ms", "nan")),
            client_ms=client_ms,
            label=members["top_k"][0][0]["label"] if reply.status == 200 else "",
            met=None if met is None else met == "true",
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
