"""What surrounds every request: its id, the Host it may name, and the token it must bring."""

import asyncio
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from tests.runtime.fakes import Client, SettableBackend, check_problem, make_service
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.app import create_app
from wenet_runtime.service.envelope import LOOPBACK_NAMES, Envelope
from wenet_runtime.service.tokens import Tokens, read_tokens


def test_a_request_id_is_echoed_everywhere(client: Client) -> None:
    request_id = "a.B_9:-" + "x" * 121
    for response in (
        client.infer(headers={"X-Request-Id": request_id}),
        client.get("/modes", headers={"X-Request-Id": request_id}),
        client.get("/nowhere", headers={"X-Request-Id": request_id}),
    ):
        assert response.headers.get_list("x-request-id") == [request_id]
    problem = check_problem(client.get("/nowhere", headers={"X-Request-Id": "mine"}), "not-found", 404)
    assert problem["instance"] == "urn:wenet:request:mine"


def test_without_one_each_request_gets_its_own(client: Client) -> None:
    ids = {client.get("/v2/health/live").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", one) for one in ids)


@pytest.mark.parametrize("value", [b"", b"a b", b"x" * 129, b"\xe9", b"a/b", b'"', b"<script>"])
def test_an_impossible_request_id_is_refused_and_not_echoed(client: Client, value: bytes) -> None:
    response = client.get("/modes", headers={b"X-Request-Id": value})
    check_problem(response, "bad-header", 400)
    assert response.headers["x-request-id"].encode() != value


@pytest.mark.parametrize("fields", [[("X-Request-Id", "a1"), ("X-Request-Id", "a1")], [("Host", "localhost")]])
def test_what_names_the_request_and_its_server_is_sent_once(client: Client, fields: List[Tuple[str, str]]) -> None:
    twice = [("Host", "localhost"), *fields]
    for response in (client.get("/modes", headers=twice), client.infer(headers=twice)):
        check_problem(response, "bad-header", 400)
    assert {"wenet-latency-ms", "server-timing"} <= set(response.headers)  # as every reply to a request for inference


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"]
)
def test_loopback_names_are_served(client: Client, host: str) -> None:
    assert client.get("/modes", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "::1"]
)
def test_other_hosts_are_refused_on_a_loopback_address(client: Client, host: str) -> None:
    for path in ("/modes", "/v2/health/live", "/metrics"):
        check_problem(client.get(path, headers={"Host": host}), "bad-header", 400)


def call(envelope: Envelope, scope: Dict[str, Any]) -> List[Any]:
    sent: List[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(envelope(scope, receive, send))
    return sent


async def empty(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("hosts", "status"), [(None, 204), (frozenset(["board"]), 204), (LOOPBACK_NAMES, 400), (frozenset(), 400)]
)
def test_named_hosts_are_served_and_all_of_them_when_none_is_named(hosts: Any, status: int) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"Board:80")]}
    assert call(Envelope(empty, hosts=hosts, closing=lambda: False), scope)[0]["status"] == status


def test_a_missing_host_is_refused() -> None:
    scope: Dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}
    assert call(Envelope(empty, hosts=LOOPBACK_NAMES, closing=lambda: False), scope)[0]["status"] == 400


@pytest.mark.parametrize("closing", [True, False])
def test_a_draining_server_ends_its_connections(closing: bool) -> None:
    scope: Dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}
    start = call(Envelope(empty, hosts=None, closing=lambda: closing), scope)[0]
    assert ((b"connection", b"close") in start["headers"]) == closing


def test_what_is_no_http_passes_through() -> None:
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    call(Envelope(inner, hosts=LOOPBACK_NAMES, closing=lambda: False), {"type": "lifespan"})
    assert seen == [{"type": "lifespan"}]


ADMIN_TOKEN, INFER_TOKEN = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "token"
    path.write_text(f"{ADMIN_TOKEN}\ninfer:{INFER_TOKEN}\n")
    path.chmod(0o600)
    return read_tokens(path)


@pytest.fixture
def guarded(bundle: Bundle, backend: SettableBackend, tokens: Tokens) -> Iterator[Client]:
    """A client of an application with tokens."""
    service = make_service(bundle, backend)
    yield Client(create_app(service, tokens=tokens), service)
    service.runtime.close(timeout_s=5)


def bearer(token: str) -> Dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_with_a_token_a_request_is_answered(guarded: Client) -> None:
    for token in (ADMIN_TOKEN, INFER_TOKEN):
        assert guarded.infer(headers=bearer(token)).status_code == 200
        assert guarded.get("/modes", headers=bearer(token)).status_code == 200
        assert guarded.get("/metrics", headers=bearer(token)).status_code == 200


@pytest.mark.parametrize("headers", [{}, bearer("0123456789abcdeF"), {"Authorization": f"Basic {ADMIN_TOKEN}"}])
def test_without_or_with_a_wrong_one_nothing_runs_and_the_reply_says_what_is_wanted(
    guarded: Client, backend: SettableBackend, headers: Dict[str, str]
) -> None:
    for response in (guarded.infer(headers=headers), guarded.get("/modes", headers=headers)):
        check_problem(response, "unauthorized", 401)
        assert response.headers["www-authenticate"] == "Bearer"
        assert "0123456789" not in response.text
    assert backend.runs == []


def test_probes_need_no_token(guarded: Client) -> None:
    assert guarded.get("/v2/health/live").status_code == 200
    assert guarded.get("/v2/health/ready").status_code == 200
    assert guarded.get("/openapi.json").status_code == 200


def test_a_token_in_the_address_is_none(guarded: Client) -> None:
    check_problem(guarded.get(f"/modes?token={ADMIN_TOKEN}&access_token={ADMIN_TOKEN}"), "unauthorized", 401)


def test_admin_is_for_tokens_without_a_limit(guarded: Client) -> None:
    check_problem(guarded.get("/admin/policy"), "unauthorized", 401)
    check_problem(guarded.get("/admin/policy", headers=bearer(INFER_TOKEN)), "forbidden", 403)
    assert guarded.get("/admin/nothing", headers=bearer(ADMIN_TOKEN)).status_code == 404


def test_admin_is_closed_without_a_token_file_even_on_loopback(client: Client) -> None:
    found = check_problem(client.get("/admin/policy", headers=bearer(ADMIN_TOKEN)), "forbidden", 403)
    assert "--token-file" in found["detail"]


def test_a_foreign_host_is_told_nothing_about_tokens(tokens: Tokens) -> None:
    headers = [(b"host", b"evil.example")]
    scope: Dict[str, Any] = {"type": "http", "method": "GET", "path": "/modes", "headers": headers}
    envelope = Envelope(empty, hosts=LOOPBACK_NAMES, closing=lambda: False, tokens=tokens)
    assert call(envelope, scope)[0]["status"] == 400


@pytest.mark.parametrize(("token", "asks"), [(ADMIN_TOKEN, 1), (None, 0), ("0" * 16, 0)])
def test_no_body_is_asked_for_before_the_token_is_right(tokens: Tokens, token: Optional[str], asks: int) -> None:
    asked: List[int] = []

    async def receive() -> Any:
        asked.append(1)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await empty(scope, receive, send)

    async def send(message: Any) -> None:
        pass

    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    scope: Dict[str, Any] = {"type": "http", "method": "POST", "path": "/infer", "headers": headers}
    envelope = Envelope(reading, hosts=None, closing=lambda: False, tokens=tokens)
    asyncio.run(envelope(scope, receive, send))
    assert len(asked) == asks
