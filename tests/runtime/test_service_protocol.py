"""What one connection may do: slow clients are ended, large heads refused, and answers keep their order."""

import asyncio
import contextlib
import json
import socket
import struct
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import httpx
import pytest
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.runtime.fakes import PATIENCE_S, SettableBackend, ones, v2_body
from tests.runtime.patience import wait_until
from tests.runtime.served import BODY, Running, head, servers
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.bodies import MAX_BODY_BYTES
from wenet_runtime.service.connections import Connections, Deadlines
from wenet_runtime.service.protocol import MAX_FIELDS, MAX_HEAD_BYTES, MAX_PIPELINED, Connection

NEVER_S = 600.0
SOON_S = 0.3


def deadlines(**soon: float) -> Deadlines:
    """Only what is named ever ends."""
    names = ("first_byte_s", "head_s", "request_s", "reply_s", "idle_s", "quiet_s")
    return Deadlines(**{**dict.fromkeys(names, NEVER_S), **soon})


@pytest.fixture(params=["asyncio", "uvloop"])
def start(request: pytest.FixtureRequest, bundle: Bundle, backend: SettableBackend) -> Iterator[Callable[..., Running]]:
    new_loop = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop
    with servers(bundle, backend) as begin:
        yield lambda connections, **how: begin(connections=connections, new_loop=new_loop, **how)


@contextlib.contextmanager
def client(running: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """What comes until the other side ends the connection."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        for piece in iter(lambda: connection.recv(65_536), b""):
            found += piece
    return found


def reply(connection: socket.socket) -> Tuple[bytes, bytes]:
    """One reply's head and body."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += connection.recv(1)
    length = next(int(line.split(b":")[1]) for line in found.lower().split(b"\r\n") if b"content-length" in line)
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return found, body


def trickle(connection: socket.socket, data: bytes) -> bytes:
    """Send a byte now and then until the other side has enough of it; returns what it said."""
    connection.settimeout(0.02)
    end_s = time.monotonic() + PATIENCE_S
    for number in range(len(data)):
        assert time.monotonic() < end_s, "it was taken for ever"
        with contextlib.suppress(OSError):
            connection.send(data[number : number + 1])
        try:
            found = connection.recv(65_536)
        except socket.timeout:
            continue
        except ConnectionResetError:
            return b""
        connection.settimeout(PATIENCE_S)
        return found + (rest(connection) if found else b"")
    raise AssertionError("nothing came before all was sent")


def pour(connection: socket.socket) -> bytes:
    """Send a kilobyte again and again until the other side has enough of it; returns what it said."""
    connection.settimeout(0.02)
    for _ in range(500):
        with contextlib.suppress(OSError):
            connection.sendall(b"y" * 1000)
        with contextlib.suppress(socket.timeout):
            found = connection.recv(65_536)
            connection.settimeout(PATIENCE_S)
            return found + rest(connection)
    raise AssertionError("it was taken for ever")


def check_problem(found: bytes, slug: str, status: int) -> Dict[str, Any]:
    """Whether this is one problem in full, after which the connection ends."""
    lines, _, body = found.partition(b"\r\n\r\n")
    first, *fields = lines.decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in fields)
    assert first.split()[1] == str(status), found
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body)
    members: Dict[str, Any] = json.loads(body)
    assert members["type"] == f"urn:wenet:problem:{slug}"
    assert members["instance"] == f"urn:wenet:request:{headers['x-request-id']}"
    return {**headers, **members}


REQUEST = head(b"Content-Length: %d" % len(BODY)) + BODY
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


# Deadlines.


def test_a_connection_on_which_nothing_comes_is_closed(start: Callable[..., Running]) -> None:
    with client(start(Connections(deadlines=deadlines(first_byte_s=SOON_S)))) as connection:
        assert rest(connection) == b""


@pytest.mark.parametrize("data", [LIVE[:-2] + b"X: " + b"y" * 10_000, b"G" * 2_000])
def test_a_trickled_head_is_ended_while_others_are_served(start: Callable[..., Running], data: bytes) -> None:
    refused: List[str] = []
    running = start(Connections(deadlines=deadlines(head_s=SOON_S), refused=refused.append))
    with client(running) as slow, client(running) as other:
        slow.sendall(data[:1])
        other.sendall(REQUEST)
        assert reply(other)[0].startswith(b"HTTP/1.1 200")
        found = trickle(slow, data[1:])
        if data[:2] == b"GG":  # no method begins so
            check_problem(found, "malformed-request", 400)
        else:
            check_problem(found, "body-timeout", 408)
            assert refused == ["body-timeout"]


@pytest.mark.parametrize(
    ("fields", "body"),
    [((b"Content-Length: 100000",), b" " * 10_000), ((b"Transfer-Encoding: chunked",), b"1\r\n \r\n" * 2_000)],
)
def test_a_trickled_body_is_ended_and_runs_nothing(
    start: Callable[..., Running], backend: SettableBackend, fields: Tuple[bytes, ...], body: bytes
) -> None:
    running = start(Connections(deadlines=deadlines(request_s=SOON_S)))
    with client(running) as slow:
        slow.sendall(head(*fields))
        check_problem(trickle(slow, body), "body-timeout", 408)
    assert backend.runs == []
    assert httpx.post(f"{running.url}/infer", json=v2_body(ones())).status_code == 200


def test_the_time_for_the_whole_request_begins_with_its_first_byte(start: Callable[..., Running]) -> None:
    running = start(Connections(deadlines=deadlines(request_s=SOON_S, head_s=NEVER_S)))
    with client(running) as slow:
        slow.sendall(b"P")
        time.sleep(2 * SOON_S)  # the head may take that long
        slow.sendall(head(b"Content-Length: 10")[1:])
        check_problem(rest(slow), "body-timeout", 408)


@pytest.mark.parametrize("noise", [b"", b"\r\n"])
def test_an_idle_connection_is_closed_whatever_comes_that_is_no_request(
    start: Callable[..., Running], noise: bytes
) -> None:
    with client(start(Connections(deadlines=deadlines(idle_s=2 * SOON_S)))) as connection:
        for _ in range(2):
            connection.sendall(REQUEST)
            assert reply(connection)[0].startswith(b"HTTP/1.1 200")
        assert (trickle(connection, noise * 10_000) if noise else rest(connection)) == b""


def test_a_connection_whose_request_runs_is_not_idle(start: Callable[..., Running], backend: SettableBackend) -> None:
    everything = Deadlines(SOON_S, SOON_S, SOON_S, SOON_S, SOON_S)
    running = start(Connections(deadlines=everything))
    backend.hold()
    with client(running) as connection:
        connection.sendall(REQUEST)
        backend.wait_until_running()
        time.sleep(3 * SOON_S)
        backend.release()
        assert reply(connection)[0].startswith(b"HTTP/1.1 200")


def large(size: int) -> Callable[..., Any]:
    """An application whose replies have so many bytes, but for one path."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        body = b"x" * (1 if scope["path"] == "/v2/health/live" else size)
        length = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})

    return answer


def test_a_client_that_stops_reading_is_cut_off(start: Callable[..., Running]) -> None:
    connections = Connections(deadlines=deadlines(reply_s=SOON_S))
    running = start(connections, app=large(64 << 20))
    with client(running) as connection:
        connection.sendall(LIVE.replace(b"/v2/health/live", b"/large"))
        wait_until(lambda: len(connections) == 1)
        wait_until(lambda: len(connections) == 0)
        assert len(rest(connection)) < 64 << 20


# Stamps.


def reading(connections: Connections) -> bool:
    """Whether a request has begun."""
    return any(one._reads != 0 for one in list(connections._served))  # type: ignore[attr-defined]


def test_each_request_is_stamped_with_its_first_byte(start: Callable[..., Running]) -> None:
    stamps: List[float] = []

    async def stamping(scope: Any, receive: Any, send: Any) -> None:
        stamps.append(scope["wenet.start_s"])
        await large(1)(scope, receive, send)

    connections = Connections(deadlines=deadlines())
    running = start(connections, app=stamping)
    with client(running) as connection:
        stamps.clear()
        times = []
        for _ in range(2):  # the second on a connection that was kept
            times.append(time.monotonic())
            connection.sendall(LIVE[:1])
            wait_until(lambda: reading(connections))
            times.append(time.monotonic())
            connection.sendall(LIVE[1:])
            reply(connection)
        assert times[0] <= stamps[0] <= times[1] <= times[2] <= stamps[1] <= times[3]
        stamps.clear()
        connection.sendall(LIVE + LIVE)
        for _ in range(2):
            reply(connection)
        assert stamps[0] == stamps[1]  # they were read together


def test_the_reported_latency_begins_with_the_first_byte(start: Callable[..., Running]) -> None:
    connections = Connections(deadlines=deadlines())
    with client(start(connections)) as connection:
        connection.sendall(REQUEST[:10])
        wait_until(lambda: reading(connections))
        time.sleep(0.25)
        connection.sendall(REQUEST[10:])
        lines = reply(connection)[0].lower().split(b"\r\n")
    latency_ms = next(float(line.split(b":")[1]) for line in lines if line.startswith(b"wenet-latency-ms"))
    assert latency_ms >= 250


# Order.


def test_requests_sent_ahead_are_answered_in_their_order(start: Callable[..., Running]) -> None:
    requests = [REQUEST.replace(b"\r\n", b"\r\nX-Request-Id: r%d\r\n" % number, 1) for number in (1, 2, 3)]
    with client(start(Connections(deadlines=deadlines()))) as connection:
        connection.sendall(b"".join(requests))
        heads = [reply(connection)[0] for _ in requests]
    assert [b"x-request-id: r%d\r\n" % number in found for number, found in zip((1, 2, 3), heads)] == [True] * 3


@pytest.mark.parametrize("second", [b"nonsense\r\n\r\n", b"POST", head(b"Content-Length: 9") + b"x"])
def test_what_is_wrong_with_a_later_request_takes_no_answer_from_an_earlier_one(
    start: Callable[..., Running], backend: SettableBackend, second: bytes
) -> None:
    running = start(Connections(deadlines=deadlines(head_s=SOON_S, request_s=SOON_S)))
    backend.hold()
    with client(running) as connection:
        connection.sendall(REQUEST)
        backend.wait_until_running()
        connection.sendall(second)
        time.sleep(2 * SOON_S)
        backend.release()
        found = rest(connection)
    assert found.startswith(b"HTTP/1.1 200")
    assert found.count(b"HTTP/1.1") == 1 or second.startswith(b"POST /")  # its time began to count after the first


def test_a_client_cannot_send_too_many_requests_ahead(start: Callable[..., Running], backend: SettableBackend) -> None:
    running = start(Connections(deadlines=deadlines()))
    backend.hold()
    with client(running) as connection:
        connection.sendall(REQUEST + LIVE * (MAX_PIPELINED + 5))
        backend.wait_until_running()
        backend.release()
        assert rest(connection).count(b"HTTP/1.1 200") == 1 + MAX_PIPELINED


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_client_that_leaves_leaves_with_all_that_it_sent_ahead(
    start: Callable[..., Running], backend: SettableBackend, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    running = start(Connections(deadlines=deadlines()))
    backend.hold()
    with client(running) as other:
        other.sendall(REQUEST)
        backend.wait_until_running()
        ran = len(backend.runs)
        with client(running) as leaving:
            leaving.sendall(REQUEST * 2)
            wait_until(lambda: running.service.runtime.queue_depth == 1)
            if how == "reset":
                leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda: running.service.runtime.queue_depth == 0)
        backend.release()
        assert reply(other)[0].startswith(b"HTTP/1.1 200")
        wait_until(lambda: running.service.runtime.pending == 0)
    assert len(backend.runs) == ran
    assert 'wenet_requests_total{outcome="cancelled"} 1.0' in running.service.metrics.render().decode()
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


# Another protocol.

H2C = (b"Connection: keep-alive, Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")


def test_a_body_behind_a_wish_for_another_protocol_is_its_request_s(start: Callable[..., Running]) -> None:
    whole = head(b"Content-Length: %d" % len(BODY), *H2C) + BODY
    with client(start(Connections(deadlines=deadlines()))) as connection:
        for pieces in ([whole], [whole[:-9], whole[-9:]], [whole[:40], whole[40:-400], whole[-400:]], [whole * 2]):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.02)
            for _ in range(len(b"".join(pieces)) // len(whole)):
                assert reply(connection)[0].startswith(b"HTTP/1.1 200")


def test_no_request_hides_in_the_body_of_such_a_one(start: Callable[..., Running]) -> None:
    hidden = b"GET /modes HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: hidden\r\n\r\n"
    with client(start(Connections(deadlines=deadlines()))) as connection:
        connection.sendall(head(b"Content-Length: %d" % len(hidden), *H2C))
        time.sleep(0.05)
        connection.sendall(hidden + LIVE.replace(b"Host", b"X-Request-Id: shown\r\nHost"))
        assert reply(connection)[0].startswith(b"HTTP/1.1 400")
        assert b"x-request-id: shown\r\n" in reply(connection)[0]


def test_such_a_request_s_time_counts_from_its_first_byte_too(start: Callable[..., Running]) -> None:
    with client(start(Connections(deadlines=deadlines()))) as connection:
        whole = head(b"Content-Length: %d" % len(BODY), b"WeNet-Budget-Ms: 150", b"WeNet-Mode: m0", *H2C) + BODY
        connection.sendall(whole[:50])
        time.sleep(0.3)
        connection.sendall(whole[50:])
        found, _ = reply(connection)
    assert b"\r\nwenet-budget-met: false\r\n" in found or b" 503 " in found or b" 504 " in found


@pytest.mark.parametrize("fields", [[], list(H2C)])
def test_requests_behind_one_without_a_body_are_answered(start: Callable[..., Running], fields: List[bytes]) -> None:
    wish = b"\r\n".join([b"GET /v2/health/live HTTP/1.1", b"Host: localhost", *fields, b"", b""])
    with client(start(Connections(deadlines=deadlines()))) as connection:
        connection.sendall(wish + LIVE + wish + LIVE)
        for _ in range(4):
            assert reply(connection)[0].startswith(b"HTTP/1.1 200")


def test_it_is_no_proxy(start: Callable[..., Running]) -> None:
    running = start(Connections(deadlines=deadlines()))
    check_problem(running.raw(b"CONNECT example.org:80 HTTP/1.1\r\nHost: localhost\r\n\r\nx"), "malformed-request", 400)


# Answers before the body has come.


@pytest.mark.parametrize(("path", "status"), [(b"/nowhere", 404), (b"/infer", 413)])
def test_whoever_sends_first_and_reads_then_gets_the_answer(
    start: Callable[..., Running], path: bytes, status: int
) -> None:
    running = start(Connections(deadlines=deadlines(drop_s=NEVER_S)))
    size = MAX_BODY_BYTES + 1
    with client(running) as connection:
        connection.sendall(head(b"Content-Length: %d" % size, b"Connection: close").replace(b"/infer", path))
        for _ in range(size >> 16):
            connection.sendall(bytes(1 << 16))
            time.sleep(0.0002)  # so that the answer is sent in the midst of it
        found = rest(connection)
    assert found.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\n\r\n{" in found


def test_what_comes_after_an_answer_is_not_taken_for_ever(start: Callable[..., Running]) -> None:
    connections = Connections(deadlines=deadlines(drop_s=SOON_S))
    running = start(connections)
    with client(running) as connection:
        connection.sendall(head(b"Content-Length: 999999", b"Connection: close").replace(b"/infer", b"/nowhere"))
        wait_until(lambda: len(connections._leaving) == 1)
        with pytest.raises(OSError):  # noqa: PT012 - the first that fails
            while True:
                connection.sendall(bytes(10))
                time.sleep(0.01)
    wait_until(lambda: len(connections._leaving) == 0)


# Heads.


def test_blanks_around_a_value_are_no_part_of_it(start: Callable[..., Running]) -> None:
    with client(start(Connections(deadlines=deadlines()))) as connection:
        connection.sendall(LIVE.replace(b"Host", b"X-Request-Id: \t mine \t \r\nHost"))
        assert b"x-request-id: mine\r\n" in reply(connection)[0]


@pytest.mark.parametrize(("version", "waits"), [(b"1.1", True), (b"1.0", False)])
def test_only_who_knows_how_to_wait_is_told_to_go_on(
    start: Callable[..., Running], version: bytes, waits: bool
) -> None:
    running = start(Connections(deadlines=deadlines()))
    fields = (b"Content-Length: %d" % len(BODY), b"Expect: 100-continue", b"Connection: close")
    found = running.raw(head(*fields).replace(b"HTTP/1.1", b"HTTP/" + version) + BODY)
    assert found.startswith(b"HTTP/1.1 100 ") is waits
    assert b"HTTP/1.1 200 " in found


def sized(size: int) -> bytes:
    """A head of so many bytes, as they are counted: without its first line's method and version."""
    filled = len(b"/v2/health/live") + len(b"Host: localhost\r\n") + len(b"X: \r\n")
    return LIVE[:-2] + b"X: " + b"y" * (size - filled) + b"\r\n\r\n"


def test_a_head_may_have_16_kib(start: Callable[..., Running]) -> None:
    running = start(Connections(deadlines=deadlines()))
    with client(running) as connection:
        connection.sendall(sized(MAX_HEAD_BYTES))
        assert reply(connection)[0].startswith(b"HTTP/1.1 200")
    check_problem(running.raw(sized(MAX_HEAD_BYTES + 1)), "head-too-large", 431)
    check_problem(running.raw(b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n"), "head-too-large", 431)


@pytest.mark.parametrize("begun", [b"GET /", LIVE[:-2] + b"X: ", LIVE[:-2] + b"x"])
def test_a_head_without_an_end_is_refused_when_it_has_grown_too_large(
    start: Callable[..., Running], begun: bytes
) -> None:
    connections = Connections(deadlines=deadlines())
    with client(start(connections)) as connection:
        connection.sendall(begun)
        check_problem(pour(connection), "head-too-large", 431)


def test_a_head_may_have_100_fields(start: Callable[..., Running]) -> None:
    running = start(Connections(deadlines=deadlines()))
    fields = [b"X-%d: y\r\n" % number for number in range(MAX_FIELDS - 1)]  # and Host
    with client(running) as connection:
        connection.sendall(LIVE[:-2] + b"".join(fields) + b"\r\n")
        assert reply(connection)[0].startswith(b"HTTP/1.1 200")
    check_problem(running.raw(LIVE[:-2] + b"".join(fields) + b"Z: y\r\n\r\n"), "head-too-large", 431)


def chunked(trailer: bytes) -> bytes:
    return head(b"Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n%b" % (len(BODY), BODY, trailer)


def test_fields_after_the_body_are_no_headers(start: Callable[..., Running]) -> None:
    with client(start(Connections(deadlines=deadlines()))) as connection:
        connection.sendall(chunked(b"WeNet-Mode: m9\r\n" * 200 + b"\r\n"))
        assert reply(connection)[0].startswith(b"HTTP/1.1 200")


def test_fields_after_the_body_without_an_end_are_refused(start: Callable[..., Running]) -> None:
    with client(start(Connections(deadlines=deadlines()))) as connection:
        connection.sendall(chunked(b""))
        check_problem(pour(connection), "head-too-large", 431)


# The limit.


def test_too_many_connections_are_told_to_come_back(start: Callable[..., Running]) -> None:
    refused: List[str] = []
    connections = Connections(3, deadlines(), refused=refused.append)
    running = start(connections)
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(client(running)) for _ in range(3)]
        for one in busy:
            one.sendall(b"P")
        wait_until(lambda: len(connections) == 3)
        found = check_problem(running.raw(LIVE), "queue-full", 503)
        assert int(found["retry-after"]) >= 1
        assert refused == ["queue-full"]
        assert len(connections) == 3
        busy[0].sendall(REQUEST[1:])
        assert reply(busy[0])[0].startswith(b"HTTP/1.1 200")
    wait_until(lambda: len(connections) == 0)
    assert httpx.get(f"{running.url}/v2/health/live").status_code == 200


def test_the_longest_idle_connection_gives_way_to_a_new_one(start: Callable[..., Running]) -> None:
    connections = Connections(3, deadlines(quiet_s=0.0))
    running = start(connections)
    with contextlib.ExitStack() as stack:
        first, second, busy = (stack.enter_context(client(running)) for _ in range(3))
        for one in (first, second, first, busy):  # the second is the one that has been idle for longer
            one.sendall(LIVE)
            reply(one)
        busy.sendall(b"P")
        new = stack.enter_context(client(running))
        new.sendall(LIVE)
        assert reply(new)[0].startswith(b"HTTP/1.1 200")
        assert rest(second) == b""
        for one, request in ((first, REQUEST), (busy, REQUEST[1:])):
            one.sendall(request)
            assert reply(one)[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("slow", [b"", b"POST /infer HTTP/1.1\r\nX: y", head(b"Content-Length: 5") + b"x"])
def test_who_is_slow_gives_way_and_who_was_answered_a_moment_ago_does_not(
    start: Callable[..., Running], slow: bytes
) -> None:
    connections = Connections(2, deadlines(quiet_s=SOON_S))
    running = start(connections)
    with contextlib.ExitStack() as stack:
        slowly = stack.enter_context(client(running))
        slowly.sendall(slow)
        honest = stack.enter_context(client(running))
        time.sleep(2 * SOON_S)
        honest.sendall(LIVE)
        reply(honest)
        new = stack.enter_context(client(running))
        new.sendall(LIVE)
        assert reply(new)[0].startswith(b"HTTP/1.1 200")
        assert rest(slowly) == b""
        honest.sendall(LIVE)
        assert reply(honest)[0].startswith(b"HTTP/1.1 200")


def test_an_upload_that_began_a_moment_ago_goes_on_whenever_its_client_was_answered_before(
    start: Callable[..., Running],
) -> None:
    connections = Connections(2, deadlines(quiet_s=SOON_S))
    running = start(connections)
    with contextlib.ExitStack() as stack:
        sends, idle = (stack.enter_context(client(running)) for _ in range(2))
        for one in (sends, idle):
            one.sendall(LIVE)
            reply(one)
        time.sleep(2 * SOON_S)
        sends.sendall(REQUEST[:-5])
        new = stack.enter_context(client(running))
        new.sendall(LIVE)
        assert reply(new)[0].startswith(b"HTTP/1.1 200")
        assert rest(idle) == b""
        sends.sendall(REQUEST[-5:])
        assert reply(sends)[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("field", [b"Connection: close", b"Connection: Close", b"Connection: close, TE"])
def test_a_connection_ends_where_its_request_says_so(start: Callable[..., Running], field: bytes) -> None:
    running = start(Connections(3, deadlines()))
    with client(running) as one:
        one.sendall(head(b"Content-Length: %d" % len(BODY), field) + BODY)
        found = rest(one)
    assert found.startswith(b"HTTP/1.1 200")
    assert b"\r\nconnection: close\r\n" in found.lower()


def test_many_tricklers_do_not_hold_the_server(start: Callable[..., Running]) -> None:
    connections = Connections(20, deadlines(head_s=SOON_S))
    running = start(connections)
    with contextlib.ExitStack() as stack:
        for one in [stack.enter_context(client(running)) for _ in range(100)]:
            with contextlib.suppress(OSError):  # most are turned away
                one.sendall(b"P")
        wait_until(lambda: len(connections) == 0)
        wait_until(lambda: len(connections._leaving) == 0)
        # On a crowded machine an honest client's head may take longer than the little that this test gives it.
        wait_until(lambda: httpx.post(f"{running.url}/infer", json=v2_body(ones())).status_code == 200)


def test_a_client_that_ignores_its_refusal_is_cut_off(start: Callable[..., Running]) -> None:
    connections = Connections(1, deadlines(linger_s=SOON_S))
    running = start(connections)
    with client(running) as first, client(running) as second:
        first.sendall(b"P")
        wait_until(lambda: len(connections) == 1 and len(connections._leaving) == 1)
        wait_until(lambda: len(connections._leaving) == 0)
        check_problem(rest(second), "queue-full", 503)


def test_those_who_leave_are_limited_too(start: Callable[..., Running]) -> None:
    connections = Connections(2, deadlines(linger_s=NEVER_S))
    running = start(connections)
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            with contextlib.suppress(OSError):
                stack.enter_context(client(running)).sendall(b"P")
        wait_until(lambda: len(connections) == 2)
        wait_until(lambda: len(connections._leaving) == 2)


@pytest.mark.parametrize("data", [b"", b"P", head(b"Content-Length: 10") + b"x", REQUEST])
def test_a_client_that_leaves_is_counted_no_more(
    start: Callable[..., Running], backend: SettableBackend, data: bytes
) -> None:
    connections = Connections(5, deadlines())
    running = start(connections)
    backend.hold()
    with client(running) as connection:
        wait_until(lambda: len(connections) == 1)
        connection.sendall(data)
    wait_until(lambda: len(connections) == 0)


# What a socket cannot show: a connection on a transport that does as it is told.


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.unsent = 0
        self.aborted = False
        self.written = b""

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: Any) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@pytest.fixture
def now() -> List[float]:
    return [100.0]


@pytest.fixture
def alone(now: List[float]) -> Iterator[Tuple[Connection, Transport]]:
    """A connection with a reply under way, at 100 s."""
    import uvicorn
    from uvicorn.server import ServerState

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(NEVER_S)

    async def make() -> Tuple[Connection, Transport]:
        connections = Connections(clock=lambda: now[0])
        config = uvicorn.Config(waiting, lifespan="off", log_config=None)
        made, transport = Connection(config, ServerState(), {}, connections=connections), Transport()
        made.connection_made(transport)
        return made, transport

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    made, transport = loop.run_until_complete(make())
    yield made, transport
    for task in made.tasks:
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    asyncio.set_event_loop(None)
    loop.close()


def test_a_client_that_reads_slowly_is_not_stalled(alone: Tuple[Connection, Transport], now: List[float]) -> None:
    connection, transport = alone
    connection.data_received(LIVE)
    for unsent in (1000, 999, 998, 997):
        transport.unsent = unsent
        now[0] += 9.9
        connection.check(now[0])
        assert not transport.aborted
    now[0] += 9.9
    connection.check(now[0])
    assert not transport.aborted
    now[0] += 0.2
    connection.check(now[0])
    assert transport.aborted


def test_the_time_in_which_the_server_does_not_read_is_not_the_clients(
    alone: Tuple[Connection, Transport], now: List[float]
) -> None:
    connection, transport = alone
    connection.data_received(LIVE)
    connection.data_received(head(b"Content-Length: 10"))  # waits behind the first: nothing is read meanwhile
    assert connection.flow.read_paused
    now[0] += 60.0
    connection.check(now[0])
    connection.flow.resume_reading()
    now[0] += 9.9
    connection.check(now[0])
    assert not connection._deaf
    now[0] += 0.2
    connection.check(now[0])
    assert connection._deaf
    assert not transport.aborted  # the first is still answered


def test_a_head_that_is_refused_while_it_is_read_is_refused_once(
    alone: Tuple[Connection, Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, transport = alone
    ended: List[bool] = []
    monkeypatch.setattr(transport, "can_write_eof", lambda: True)
    monkeypatch.setattr(transport, "write_eof", lambda: ended.append(True), raising=False)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 3000)  # too many, and too much
    assert transport.written.count(b"HTTP/1.1 431 ") == 1
    assert ended == [True]


@pytest.mark.parametrize("path", [b"HTTP/1.0", b"FTP/1.1"])
def test_a_path_that_is_none_is_refused(alone: Tuple[Connection, Transport], path: bytes) -> None:
    connection, transport = alone
    connection.data_received(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert transport.written.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(("waited_s", "closed"), [(9.9, False), (10.0, True)])
def test_ten_seconds_for_the_first_byte(
    alone: Tuple[Connection, Transport], now: List[float], waited_s: float, closed: bool
) -> None:
    connection, transport = alone
    connection.check(now[0] + waited_s)
    assert transport.aborted is closed


@pytest.mark.parametrize(
    ("data", "limit_s"), [(b"P", 5.0), (head(b"Content-Length: 10"), 10.0), (head(b"Content-Length: 10") + b"x", 10.0)]
)
def test_five_seconds_for_the_head_and_ten_for_the_request(
    alone: Tuple[Connection, Transport], now: List[float], data: bytes, limit_s: float
) -> None:
    connection, transport = alone
    connection.data_received(data)
    connection.check(now[0] + limit_s - 0.1)
    assert transport.written == b""
    connection.check(now[0] + limit_s)
    check_problem(transport.written, "body-timeout", 408)


@pytest.mark.parametrize(
    "name",
    [name for name, member in vars(Connection).items() if callable(member) and not name.startswith("_")
     and name not in ("quiet", "give_way", "abort", "check")],
)  # fmt: skip
def test_uvicorn_still_calls_what_is_overridden(name: str) -> None:
    assert callable(getattr(HttpToolsProtocol, name))
