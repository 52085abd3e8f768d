"""The server on a real socket: bad clients are answered, a drain ends accepted work, a second signal does not wait."""

import signal
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import httpx
import pytest
from fastapi import FastAPI, Request

from tests.runtime.fakes import PATIENCE_S, SettableBackend, make_service, ones, v2_body
from tests.runtime.served import BODY, Running, head, servers
from wenet_runtime.budget import RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.service import server as server_module
from wenet_runtime.service.app import create_app
from wenet_runtime.service.envelope import App, Envelope
from wenet_runtime.service.server import Server
from wenet_runtime.service.tokens import Tokens, read_tokens


@pytest.fixture
def start(bundle: Bundle, backend: SettableBackend) -> Iterator[Callable[..., Running]]:
    with servers(bundle, backend) as begin:
        yield begin


def test_a_request_of_bytes_is_answered(start: Callable[..., Running]) -> None:
    running = start()
    found = running.raw(head(b"Content-Length: %d" % len(BODY), b"Connection: close") + BODY)
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"wenet-mode: m2" in found.lower()
    assert b"\r\nserver:" not in found.lower()


def test_a_chunked_body_is_taken(start: Callable[..., Running]) -> None:
    found = start().raw(
        head(b"Transfer-Encoding: chunked", b"Connection: close") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    )
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "data",
    [
        head(b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"5\r\nabcde\r\n0\r\n\r\n",
        head(b"Content-Length: 5", b"Content-Length: 6") + b"abcdef",
        head(b"Content-Length: -5"),
        head(b"Content-Length: 99999999999999999999999"),
        head(b"Content-Length: 5", b"WeNet-Budget-Ms: 1\x00") + b"{}",
        b"nonsense\r\n\r\n",
        b"POST /infer HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_no_proper_request_is_400_and_the_next_is_served(start: Callable[..., Running], data: bytes) -> None:
    running = start()
    found = running.raw(data)
    assert found.startswith(b"HTTP/1.1 400 ")
    assert b"\r\ncontent-type: application/problem+json\r\n" in found
    assert found.count(b"HTTP/1.1 4") == 1
    assert httpx.post(f"{running.url}/infer", content=BODY).status_code == 200


def test_a_client_that_sends_half_a_body_and_leaves_runs_nothing(
    start: Callable[..., Running], backend: SettableBackend
) -> None:
    running = start()
    running.raw(head(b"Content-Length: %d" % len(BODY)) + BODY[:20], leave=True)
    assert httpx.post(f"{running.url}/infer", json=v2_body(ones(value=3.0))).status_code == 200
    assert backend.first_numbers == [3.0]


ADMIN_TOKEN, INFER_TOKEN = b"0123456789abcdef", b"fedcba9876543210"


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "token"
    path.write_bytes(ADMIN_TOKEN + b"\ninfer:" + INFER_TOKEN)
    path.chmod(0o600)
    return read_tokens(path)


@pytest.fixture
def entered() -> List[str]:
    """The paths with which a route below /admin was entered."""
    return []


@pytest.fixture
def guarded(tokens: Tokens, entered: List[str]) -> App:
    """An application that has such a route."""
    inner = FastAPI()

    @inner.get("/v2/health/live")
    async def live() -> int:
        return 1

    @inner.get("/admin/policy")
    async def policy(request: Request) -> int:
        entered.append(request.url.path)
        return 2

    return Envelope(inner, hosts=None, closing=lambda: False, tokens=tokens)


def test_no_spelling_of_a_path_gets_round_the_token(
    start: Callable[..., Running], guarded: App, entered: List[str]
) -> None:
    running = start(app=guarded)

    def ask(target: bytes, *lines: bytes) -> bytes:
        head = [b"GET " + target + b" HTTP/1.1", b"Host: localhost", b"Connection: close", *lines, b"", b""]
        return running.raw(b"\r\n".join(head)).split(b"\r\n", 1)[0]

    targets = [
        b"/admin/policy", b"//admin/policy", b"/./admin/policy", b"/x/../admin/policy", b"/%61dmin/policy",
        b"/%2e/admin/policy", b"/admin%2fpolicy", b"/admin%2Fpolicy", b"/%2561dmin/policy", b"/ADMIN/policy",
        b"/admin/policy/", b"/admin/policy%0a", b"/admin/policy%00", b"/admin//policy", b"/admin/./policy",
        b"http://localhost/admin/policy", b"http://localhost//admin/policy", b"/admin/policy?/v2/health/live",
        b"/v2/health/live/..%2f..%2f..%2fadmin/policy", b"/v2/health/live/../../../admin/policy",
        b"/v2/health/live%2f..%2f..%2f..%2fadmin%2fpolicy", b"/admin/policy;/ui", b"\\\\admin\\policy", b"*",
    ]  # fmt: skip
    for target in targets:
        assert ask(target).split()[1] in (b"400", b"401"), target
        found = ask(target, b"Authorization: Bearer " + INFER_TOKEN)
        assert found.split()[1] in (b"400", b"403", b"404", b"307"), target
    assert entered == []
    for target in (b"/admin/policy", b"/%61dmin/policy", b"/admin%2fpolicy"):  # these are the path the router sees
        assert b" 200 " in ask(target, b"Authorization: Bearer " + ADMIN_TOKEN)
    assert len(entered) == 3


def test_who_has_no_token_is_refused_before_the_body_is_sent(start: Callable[..., Running], guarded: App) -> None:
    running = start(app=guarded)
    found = running.raw(head(b"Content-Length: 9999999", b"Expect: 100-continue", b"Connection: close"))
    assert found.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nwww-authenticate: Bearer\r\n" in found
    assert ADMIN_TOKEN not in found


def test_who_asks_is_who_is_connected_whatever_a_header_says(start: Callable[..., Running]) -> None:
    clients: List[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clients.append(scope["client"][0])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    running = start(app=app)
    for name in ("X-Forwarded-For", "Forwarded"):
        httpx.get(running.url, headers={name: "10.0.0.1", "X-Forwarded-Proto": "https"})
    assert set(clients) == {"127.0.0.1"}


def test_a_request_to_change_the_protocol_is_answered_as_any_other(start: Callable[..., Running], guarded: App) -> None:
    running = start(app=guarded)
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert httpx.get(f"{running.url}/admin/policy", headers=headers).status_code == 401
    assert running.server.config.ws == "none"  # whatever libraries are installed beside it


def test_a_drain_finishes_accepted_work_and_then_ends(start: Callable[..., Running], backend: SettableBackend) -> None:
    running = start()
    backend.hold()
    replies: List[httpx.Response] = []
    client = threading.Thread(target=lambda: replies.append(httpx.post(f"{running.url}/infer", content=BODY)))
    client.start()
    backend.wait_until_running()
    with httpx.Client(base_url=running.url) as other:
        running.drain()
        ready = other.get("/v2/health/ready")
        assert (ready.status_code, ready.headers["connection"]) == (503, "close")
        assert ready.json()["type"] == "urn:wenet:problem:draining"
    backend.release()
    client.join(PATIENCE_S)
    assert [reply.status_code for reply in replies] == [200]
    assert running.ended()
    assert running.server.abandoned == 0


def test_a_drain_is_told_when_it_begins(start: Callable[..., Running], backend: SettableBackend) -> None:
    told = threading.Event()
    running = start(on_drain=told.set)
    backend.hold()
    running.service.runtime.submit({"input": ones()}, RequestOptions(), 0.0)
    backend.wait_until_running()
    assert not told.is_set()
    running.drain()
    assert told.wait(PATIENCE_S)
    assert running.service.runtime.pending == 1  # before what was accepted is finished
    backend.release()
    assert running.ended()


def test_a_reply_that_leaves_just_after_the_drain_s_time_is_not_abandoned(
    start: Callable[..., Running], backend: SettableBackend
) -> None:
    running = start(drain_timeout_s=0.2)
    backend.hold()
    replies: List[httpx.Response] = []
    url = f"{running.url}/infer"
    client = threading.Thread(target=lambda: replies.append(httpx.post(url, content=BODY, timeout=PATIENCE_S)))
    client.start()
    backend.wait_until_running()
    running.drain()
    end = time.monotonic() + PATIENCE_S
    while not running.server.should_exit:  # the drain's time is over, the request still runs
        assert time.monotonic() < end, "the drain did not end in its time"
        time.sleep(0.005)
    backend.release()
    client.join(PATIENCE_S)
    assert [reply.status_code for reply in replies] == [200]
    assert running.ended()
    assert running.server.abandoned == 0


def test_work_that_outlasts_the_drain_is_counted_as_abandoned(
    start: Callable[..., Running], backend: SettableBackend
) -> None:
    running = start(drain_timeout_s=0.05)
    backend.hold()
    stuck = running.service.runtime.submit({"input": ones()}, RequestOptions(), 0.0)
    backend.wait_until_running()
    running.drain()
    assert running.ended()
    assert running.server.abandoned == 1
    backend.release()
    assert stuck.result(PATIENCE_S)


@pytest.mark.parametrize(("sig", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_exits_at_once_with_its_own_code(
    start: Callable[..., Running], backend: SettableBackend, monkeypatch: pytest.MonkeyPatch, sig: int, code: int
) -> None:
    exits: List[int] = []
    monkeypatch.setattr(server_module.os, "_exit", exits.append)
    running = start()
    running.service.runtime.drain()  # as somebody asked for over HTTP, which is no signal
    running.server.handle_exit(signal.SIGTERM, None)
    assert exits == []
    running.server.handle_exit(sig, None)
    assert exits == [code]


def test_a_signal_before_the_server_turns_ends_it(bundle: Bundle, backend: SettableBackend) -> None:
    service = make_service(bundle, backend)
    how: Any = {"host": "127.0.0.1", "port": 0, "drain_delay_s": 0.0, "drain_timeout_s": 1.0}
    server = Server(create_app(service), service.runtime, **how)
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit
    assert service.runtime.draining
    service.runtime.close()
