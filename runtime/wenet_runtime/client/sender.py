"""Sends a load and takes in the answers, with as little of the machine as it can: one thread, non-blocking sockets."""

import gc
import select
import socket
import time
from collections import deque
from dataclasses import replace
from typing import Deque, Dict, Mapping, Optional, Sequence, Set, Tuple

from wenet_runtime.client.load import NO_ANSWER, Answer, Run, answered

SEND_BUFFER = 1 << 20  # a whole request at once, as far as the system lets it
MOST_CONNECTIONS = 900  # select() takes descriptors below 1024
CONNECT_S = 10.0


def request_bytes(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A whole POST as it goes over the wire."""
    head = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": str(len(body))}.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body


class _Connection:
    """A keep-alive connection and the one request that it carries."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), CONNECT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.socket.setblocking(False)
        self.number = -1
        self.unsent = memoryview(b"")
        self.received = bytearray()

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self) -> None:
        """Send what the system takes now. Raises `OSError` if the peer is gone."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return

    def reply(self) -> Optional[Tuple[int, Dict[str, str], bytes]]:
        """Take in what has arrived; (status, headers by lower-case name, body) once all is there.

        Raises `OSError` if the peer closed before that, `ValueError` if it does not speak HTTP.
        """
        part = self.socket.recv(1 << 18)
        if not part:
            raise ConnectionResetError("closed by the peer")
        self.received += part
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self.received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if len(self.received) < end + 4 + length:
            return None
        return int(first.split(" ", 2)[1]), headers, bytes(self.received[end + 4 :])


class Sender:
    """Sends a load and collects the answers. Connects when constructed.

    Args:
        host: of the server.
        port: of the server.
        requests: as they go over the wire, sent in turn.
        arrivals_s: when each is due, seconds from the start, ascending.
        connections: how many are open before the start; more are opened where all are in use.
        closed_s: 0 for an open loop; otherwise a closed one for so many seconds: a request leaves as soon as one of
            the connections is free, and `arrivals_s` is not looked at.
        patience_s: how long after the last request answers are waited for.

    Raises:
        OSError: the server cannot be connected to.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        requests: Sequence[bytes],
        arrivals_s: Sequence[float],
        connections: int = 96,
        closed_s: float = 0.0,
        patience_s: float = 10.0,
    ) -> None:
        self._where = (host, port)
        self._requests = [memoryview(one) for one in requests]
        self._arrivals_s = arrivals_s
        self._closed_s = closed_s
        self._patience_s = patience_s
        self._free: Deque[_Connection] = deque()
        self._busy: Set[_Connection] = set()
        self._answers: Dict[int, Answer] = {}
        self._start_s = 0.0
        self._opened = 0
        try:
            for _ in range(min(connections, MOST_CONNECTIONS)):
                self._free.append(_Connection(host, port))
        except OSError:
            self.close()
            raise

    def run(self, start_s: float) -> Run:
        """Send everything from `start_s` (monotonic) on, wait for the answers, close the connections.

        Ctrl-C ends it early: what was answered until then is kept.
        """
        self._start_s = start_s
        collected = gc.isenabled()
        gc.collect()
        gc.disable()  # a collection would send requests late
        interrupted_s: Optional[float] = None
        cpu_s = time.process_time()
        try:
            time.sleep(max(0.0, start_s - time.monotonic()))
            self._closed_loop() if self._closed_s else self._open_loop()
            end_s = time.monotonic() + self._patience_s
            while self._busy and time.monotonic() < end_s:
                self._exchange(end_s - time.monotonic())
            for connection in list(self._busy):
                self._lost(connection)
        except KeyboardInterrupt:
            interrupted_s = time.monotonic() - start_s
            for connection in self._busy:  # that they have no answer is not the server's doing
                self._answers.pop(connection.number, None)
        finally:
            cpu_ms = (time.process_time() - cpu_s) * 1e3 / max(1, len(self._answers))
            self.close()
            if collected:
                gc.enable()
        answers = tuple(self._answers[number] for number in sorted(self._answers))
        return Run(start_s, answers, cpu_ms, self._opened, interrupted_s)

    def close(self) -> None:
        """Close every connection."""
        for connection in [*self._free, *self._busy]:
            connection.socket.close()
        self._free.clear()
        self._busy.clear()

    def _open_loop(self) -> None:
        for number, at_s in enumerate(self._arrivals_s):
            due_s = self._start_s + at_s
            left_s = due_s - time.monotonic()
            while left_s > 0:
                self._exchange(left_s)
                left_s = due_s - time.monotonic()
            self._send(number)
            self._exchange(0.0)

    def _closed_loop(self) -> None:
        end_s = self._start_s + self._closed_s
        number = 0
        while time.monotonic() < end_s:
            if self._free:
                self._send(number)
                number += 1
            else:
                self._exchange(end_s - time.monotonic())

    def _send(self, number: int) -> None:
        now_s = time.monotonic() - self._start_s
        at_s = now_s if self._closed_s else self._arrivals_s[number]  # in a closed loop it is due when it is sent
        late_ms = (now_s - at_s) * 1e3
        kind = number % len(self._requests)
        self._answers[number] = Answer(at_s, late_ms, late_ms, NO_ANSWER, kind=kind)
        for _ in range(len(self._free) + 1):  # one that the server closed while it was idle is replaced
            if not self._free:
                if len(self._busy) >= MOST_CONNECTIONS:
                    return
                try:
                    self._free.append(_Connection(*self._where))
                except OSError:  # the server is gone, or takes no more: this request has no answer
                    return
                self._opened += 1
            connection = self._free.popleft()  # the one used least lately: none stays idle for long
            connection.number = number
            connection.unsent = self._requests[kind]
            try:
                connection.send()
            except OSError:
                connection.socket.close()
                continue
            self._busy.add(connection)
            return

    def _exchange(self, timeout_s: float) -> None:
        """Send what is left of requests and take in replies, for at most so long."""
        writing = [one for one in self._busy if one.unsent]
        readable, writable, _ = select.select(list(self._busy), writing, [], max(0.0, timeout_s))
        for connection in writable:
            try:
                connection.send()
            except OSError:  # refused before it was read: the reply may lie there all the same
                connection.unsent = memoryview(b"")
        for connection in readable:
            try:
                reply = connection.reply()
            except (OSError, ValueError, IndexError):
                self._lost(connection)
                continue
            if reply is not None:
                self._done(connection, *reply)

    def _done(self, connection: _Connection, status: int, headers: Mapping[str, str], body: bytes) -> None:
        now_s = time.monotonic()
        sent = self._answers[connection.number]
        latency_ms = (now_s - self._start_s - sent.at_s) * 1e3
        self._answers[connection.number] = answered(sent, latency_ms, status, headers, body)
        connection.received.clear()
        self._busy.remove(connection)
        if connection.unsent or headers.get("connection", "").lower() == "close":
            connection.socket.close()
        else:
            self._free.append(connection)

    def _lost(self, connection: _Connection) -> None:
        """Record that no answer came, and when that was known."""
        sent = self._answers[connection.number]
        waited_ms = (time.monotonic() - self._start_s - sent.at_s) * 1e3
        self._answers[connection.number] = replace(sent, latency_ms=waited_ms)
        self._busy.remove(connection)
        connection.socket.close()
