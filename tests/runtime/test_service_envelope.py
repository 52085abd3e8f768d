"""What surrounds every request: its id, and the Host it may name."""

import asyncio
import re
from typing import Any, Dict, List

import pytest

from tests.runtime.fakes import Client, check_problem
from wenet_runtime.service.envelope import LOOPBACK_NAMES, Envelope


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
