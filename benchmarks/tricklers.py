"""Do 1,000 clients that send a byte now and then hold the server? One that keeps its connection is timed meanwhile.

The tricklers come at once, each sends its head byte by byte for as long as it is let, and none comes back. Beside them
one client asks again and again on a connection that it had before, and another opens a new connection for each request.
"""

import contextlib
import multiprocessing
import selectors
import socket
import tempfile
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.common import Arguments, Measured, at_least, at_most, reported, run
from benchmarks.load_bench import Daemon
from benchmarks.serving_client import Connection
from benchmarks.serving_models import transport

QUESTION = "Do 1,000 clients that send a byte now and then hold the server, or slow an honest one down?"
TRICKLERS, QUICK = 1000, 100
BYTE_S = 0.5  # between two bytes of one trickler
CALM_S = 10.0
GONE_S = 10.0  # by then each must have been sent away
NEWCOMER_S = 0.25  # between two clients that come anew


def measure(arguments: Arguments) -> Measured:
    """The honest client alone, beside the tricklers, and alone again."""
    count = QUICK if arguments.quick else TRICKLERS
    calm_s = 1.0 if arguments.quick else CALM_S
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="wenet-tricklers-")))
        subject = transport(folder / "small", 2)
        log = opened.enter_context((folder / "log").open("ab"))
        flags = ["--bundle", str(subject.bundle.path), "--cache-dir", str(subject.cache), "--meter", "none"]
        daemon = opened.enter_context(Daemon(flags, log))
        spawn = multiprocessing.get_context("spawn")
        others = opened.enter_context(ProcessPoolExecutor(1, mp_context=spawn))
        others.submit(time.sleep, 0).result()  # it is there before anything is timed
        fields = f"Host: 127.0.0.1\r\nContent-Type: application/octet-stream\r\nContent-Length: {len(subject.content)}"
        head = f"POST /infer HTTP/1.1\r\n{fields}\r\nInference-Header-Content-Length: 0\r\n\r\n"
        request = head.encode() + subject.content
        honest = Connection(daemon.port)
        opened.callback(honest.close)
        before = _asked(honest, request, time.monotonic() + calm_s)
        tricklers: Future[list[float]] = others.submit(_trickle, daemon.port, count)
        newcomers = _Newcomers(daemon.port, request)
        newcomers.start()
        beside = []
        while not tricklers.done():
            beside += _asked(honest, request, time.monotonic() + 0.2)
        lives_s = tricklers.result()
        newcomers.ended.set()
        newcomers.join()
        after = _asked(honest, request, time.monotonic() + calm_s)
    calm, busy = np.array(before + after), np.array(beside)
    how = f"{count} tricklers, one byte in {BYTE_S:g} s each"
    p99 = {name: float(np.percentile(times, 99)) for name, times in (("calm", calm), ("busy", busy))}
    figures = {
        "sent_away": at_least(len(lives_s), count, "tricklers", how),
        "longest_s": at_most(max(lives_s), GONE_S, "s", f"until the last was sent away; {how}"),
        "p99_ratio": at_most(p99["busy"] / p99["calm"], 1.2, "x", f"of the honest client, {how}"),
        "p50_ratio": reported(float(np.median(busy) / np.median(calm)), "x", f"of the honest client, {how}"),
        "calm_p99_ms": reported(p99["calm"], "ms", f"{len(calm)} requests before and after"),
        "busy_p99_ms": reported(p99["busy"], "ms", f"{len(busy)} requests while they trickled"),
        "newcomers_served": reported(
            newcomers.served, "clients", f"of {newcomers.came} that opened a connection meanwhile; others got 503"
        ),
        "newcomers_failed": at_most(newcomers.failed, 0, "clients", "neither an answer nor 503 with Retry-After"),
    }
    return figures, {"lives_s": [round(one, 3) for one in lives_s]}


def _asked(client: Connection, request: bytes, end_s: float) -> list[float]:
    times = []
    while time.monotonic() < end_s:
        reply = client.ask(request)
        if reply.status != 200:
            raise RuntimeError(f"the honest client was answered {reply.status}: {reply.body[:200]!r}")
        times.append(reply.ms)
        time.sleep(0.002)
    return times


def _trickle(port: int, count: int) -> list[float]:
    """How long each was let, s."""
    waiting = selectors.DefaultSelector()
    came_s: dict[socket.socket, float] = {}
    for _ in range(count):
        new = socket.create_connection(("127.0.0.1", port), 10)
        new.setblocking(False)
        came_s[new] = time.monotonic()
        waiting.register(new, selectors.EVENT_READ, new)
    text = b"POST /infer HTTP/1.1\r\nX: " + b"y" * 4096
    sent = dict.fromkeys(came_s, 0)
    due_s = {each: began_s + number * BYTE_S / count for number, (each, began_s) in enumerate(came_s.items())}
    lives_s = []
    while came_s:
        for key, _ in waiting.select(0.01):
            one: socket.socket = key.data
            try:
                over = not one.recv(65_536)
            except BlockingIOError:
                continue
            except OSError:
                over = True
            if over:
                waiting.unregister(one)
                one.close()
                lives_s.append(time.monotonic() - came_s.pop(one))
        now_s = time.monotonic()
        for one in list(came_s):
            if due_s[one] <= now_s:
                due_s[one] = now_s + BYTE_S
                with contextlib.suppress(OSError):  # that it is over is read
                    sent[one] += one.send(text[sent[one] : sent[one] + 1])
    waiting.close()
    return lives_s


class _Newcomers(threading.Thread):
    """Clients that come anew, one after another."""

    def __init__(self, port: int, request: bytes) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.came = self.served = self.failed = 0
        self._port = port
        self._request = request

    def run(self) -> None:
        """Come, ask, go."""
        while not self.ended.wait(NEWCOMER_S):
            self.came += 1
            try:
                client = Connection(self._port, timeout_s=10)
                try:
                    reply = client.ask(self._request)
                finally:
                    client.close()
            except OSError:
                self.failed += 1
                continue
            self.served += reply.status == 200
            self.failed += reply.status not in (200, 503) or (
                reply.status == 503 and "retry-after" not in reply.headers
            )


if __name__ == "__main__":
    run("tricklers", QUESTION, measure, needs_bundle=False)
