"""The generator's process: sends an open-loop load and takes in the answers, with as little of the machine as it can.

    python -m benchmarks.sender

One thread over non-blocking sockets that are open before the first request; `benchmarks.open_loop.Generator` drives it.
"""

import gc
import json
import os
import select
import socket
import sys
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path

from benchmarks.open_loop import NO_ANSWER, Answer, Load, Run

SEND_BUFFER = 1 << 20  # a whole request at once, as far as the system lets it
MOST_CONNECTIONS = 900  # select() takes descriptors below 1024


class _Connection:
    """A keep-alive connection and the one request that it carries."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.socket.setblocking(False)
        self.number = -1
        self.late_ms = 0.0
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

    def reply(self) -> tuple[int, dict[str, str], bytes] | None:
        """Take in what has arrived; (status, headers by lower-case name, body) once all is there.

        Raises `OSError` if the peer closed before that.
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
    """Sends a load and collects the answers. Connects when constructed."""

    def __init__(self, load: Load) -> None:
        self._load = load
        body = Path(load.body).read_bytes()
        lines = {
            "Host": "127.0.0.1",
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": "0",
            "Content-Length": str(len(body)),
            **load.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._request = f"POST /infer HTTP/1.1\r\n{head}\r\n".encode() + body
        self._free = deque(_Connection(load.port) for _ in range(load.connections))
        self._busy: set[_Connection] = set()
        self._answers: dict[int, Answer] = {}
        self._start_s = 0.0
        self._opened = 0

    def run(self, start_s: float) -> Run:
        """Send everything, wait for the answers, close the connections."""
        self._start_s = start_s
        gc.collect()
        gc.disable()  # a collection would send requests late
        cpu_s = time.process_time()
        time.sleep(max(0.0, start_s - time.monotonic()))
        sent = self._closed_loop() if self._load.closed_s else self._open_loop()
        end_s = time.monotonic() + self._load.patience_s
        while self._busy and time.monotonic() < end_s:
            self._exchange(end_s - time.monotonic())
        for connection in list(self._busy):
            self._lost(connection)
        for connection in self._free:
            connection.socket.close()
        cpu_ms = (time.process_time() - cpu_s) * 1e3 / max(1, sent)
        answers = tuple(self._answers[number] for number in sorted(self._answers))
        return Run(start_s, answers, cpu_ms, self._opened)

    def _open_loop(self) -> int:
        for number, at_s in enumerate(self._load.arrivals_s):
            due_s = self._start_s + at_s
            while (left_s := due_s - time.monotonic()) > 0:
                self._exchange(left_s)
            self._send(number)
            self._exchange(0.0)
        return len(self._load.arrivals_s)

    def _closed_loop(self) -> int:
        end_s = self._start_s + self._load.closed_s
        number = 0
        while time.monotonic() < end_s:
            if self._free:
                self._send(number)
                number += 1
            else:
                self._exchange(end_s - time.monotonic())
        return number

    def _due_s(self, number: int) -> float:
        """When a request is due, from the start; in a closed loop that is when it is sent."""
        return time.monotonic() - self._start_s if self._load.closed_s else self._load.arrivals_s[number]

    def _send(self, number: int) -> None:
        at_s = self._due_s(number)
        late_ms = (time.monotonic() - self._start_s - at_s) * 1e3
        for _ in range(len(self._free) + 1):  # one that the daemon closed while it was idle is replaced
            if not self._free:
                if len(self._busy) >= MOST_CONNECTIONS:
                    break
                self._free.append(_Connection(self._load.port))
                self._opened += 1
            connection = self._free.popleft()  # the one used least lately: none stays idle for long
            connection.number, connection.late_ms = number, late_ms
            connection.unsent = memoryview(self._request)
            try:
                connection.send()
            except OSError:
                connection.socket.close()
                continue
            self._busy.add(connection)
            self._answers[number] = Answer(at_s, late_ms, 0.0, NO_ANSWER)
            return
        self._answers[number] = Answer(at_s, late_ms, late_ms, NO_ANSWER)

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
            except OSError:
                self._lost(connection)
                continue
            if reply is not None:
                self._done(connection, *reply)

    def _done(self, connection: _Connection, status: int, headers: dict[str, str], body: bytes) -> None:
        now_s = time.monotonic()
        at_s = self._answers[connection.number].at_s
        met = headers.get("wenet-budget-met")
        problem = json.loads(body).get("type", "").rsplit(":", 1)[-1] if status != 200 and body else None
        self._answers[connection.number] = Answer(
            at_s=at_s,
            late_ms=connection.late_ms,
            latency_ms=(now_s - self._start_s - at_s) * 1e3,
            status=status,
            mode=headers.get("wenet-mode"),
            reason=headers.get("wenet-mode-reason"),
            predicted_ms=_number(headers.get("wenet-predicted-ms")),
            served_ms=_number(headers.get("wenet-latency-ms")),
            met=None if met is None else met == "true",
            problem=problem,
        )
        connection.received.clear()
        self._busy.remove(connection)
        if connection.unsent or headers.get("connection", "").lower() == "close":
            connection.socket.close()
        else:
            self._free.append(connection)

    def _lost(self, connection: _Connection) -> None:
        """Record that no answer came, and when that was known."""
        at_s = self._answers[connection.number].at_s
        waited_ms = (time.monotonic() - self._start_s - at_s) * 1e3
        self._answers[connection.number] = Answer(at_s, connection.late_ms, waited_ms, NO_ANSWER)
        self._busy.remove(connection)
        connection.socket.close()


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def main() -> None:
    """Read a load, connect, say so, read when to start, send, print what was seen."""
    load = Load(**json.loads(sys.stdin.readline()))
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    sender = Sender(load)
    print("ready", flush=True)
    run = sender.run(float(sys.stdin.readline()))
    rows = [list(asdict(answer).values()) for answer in run.answers]
    print(json.dumps({"start_s": run.start_s, "cpu_ms": run.cpu_ms, "opened": run.opened, "answers": rows}))


if __name__ == "__main__":
    main()
