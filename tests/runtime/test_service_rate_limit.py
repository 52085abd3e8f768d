"""A client that asks too often is told when to come back, and others are not."""

from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from tests.runtime.fakes import Client, SettableBackend, check_problem, make_service
from wenet_runtime.bundle import Bundle
from wenet_runtime.service import rate_limit
from wenet_runtime.service.app import create_app
from wenet_runtime.service.daemon import policy_of
from wenet_runtime.service.options import Defaults
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.rate_limit import RateLimit, client_of
from wenet_runtime.service.tokens import Tokens, read_tokens
from wenet_runtime.settings import Settings

TOKENS = ["a" * 20, "b" * 20]


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def allowed(limit: RateLimit, times: int, per_s: float, client: str = "one") -> List[bool]:
    found = []
    for _ in range(times):
        try:
            limit.check(client, per_s)
            found.append(True)
        except Problem as problem:
            found.append(problem.slug != "rate-limited")
    return found


def test_a_second_s_worth_may_come_at_once_and_then_as_time_passes(clock: Clock) -> None:
    limit = RateLimit(clock)
    assert allowed(limit, 5, 3.0) == [True] * 3 + [False] * 2
    clock.now_s += 0.34
    assert allowed(limit, 2, 3.0) == [True, False]
    clock.now_s += 1000
    assert allowed(limit, 5, 3.0) == [True] * 3 + [False] * 2


def test_less_than_one_a_second_is_one_at_a_time(clock: Clock) -> None:
    limit = RateLimit(clock)
    assert allowed(limit, 2, 0.1) == [True, False]
    clock.now_s += 9.9
    assert allowed(limit, 1, 0.1) == [False]
    clock.now_s += 0.2
    assert allowed(limit, 2, 0.1) == [True, False]


def test_the_wait_is_told(clock: Clock) -> None:
    limit = RateLimit(clock)
    limit.check("one", 0.1)
    with pytest.raises(Problem) as caught:
        limit.check("one", 0.1)
    assert caught.value.extra == {"retry_after_ms": 10_000, "executed": False}


def test_clients_have_their_own(clock: Clock) -> None:
    limit = RateLimit(clock)
    assert allowed(limit, 2, 1.0) == [True, False]
    assert allowed(limit, 2, 1.0, "other") == [True, False]


def test_so_many_clients_are_remembered_and_no_more(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "KEPT", 3)
    limit = RateLimit(clock)
    for client in ("a", "b", "c", "a", "d"):
        allowed(limit, 1, 1.0, client)
    assert len(limit._buckets) == 3
    assert allowed(limit, 1, 1.0, "a") == [False]  # it asked last but one
    assert allowed(limit, 1, 1.0, "b") == [True]  # forgotten


def test_a_client_is_its_token_where_tokens_are_checked() -> None:
    scope = {"headers": [(b"host", b"x"), (b"authorization", b"Bearer t")], "client": ("1.2.3.4", 5)}
    assert client_of(scope) == "1.2.3.4"
    assert client_of({**scope, "wenet.by_token": True}) not in ("1.2.3.4", "Bearer t")
    assert client_of({**scope, "headers": [], "wenet.by_token": True}) == "1.2.3.4"
    assert client_of({"headers": [], "client": None}) == ""


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    file = tmp_path / "tokens"
    file.write_text("\n".join(TOKENS))
    file.chmod(0o600)
    return read_tokens(file)


@pytest.mark.parametrize("path", ["/infer", "/v2/models/tiny/infer", "/v2/models/tiny/versions/m0/infer"])
def test_over_http_it_is_429_with_the_time_to_come_back(bundle: Bundle, backend: SettableBackend, path: str) -> None:
    service = make_service(bundle, backend, defaults=Defaults(rate_limit=0.01))
    client = Client(create_app(service))
    assert client.infer(path=path).status_code == 200
    response = client.infer(path=path, headers={"Authorization": "Bearer another"})
    members = check_problem(response, "rate-limited", 429)
    assert 90_000 < members["retry_after_ms"] <= 100_000
    assert 90 < int(response.headers["retry-after"]) <= 100
    assert b'outcome="client_error"} 1.0' in service.metrics.render()
    assert client.get("/v2/health/ready").status_code == 200
    service.runtime.close()


def test_over_http_tokens_are_told_apart(bundle: Bundle, backend: SettableBackend, tokens: Tokens) -> None:
    service = make_service(bundle, backend, defaults=Defaults(rate_limit=0.01))
    client = Client(create_app(service, tokens=tokens))
    found = [client.infer(headers={"Authorization": f"Bearer {one}"}).status_code for one in (*TOKENS, TOKENS[0])]
    assert found == [200, 200, 429]
    service.runtime.close()


@pytest.mark.parametrize(("flags", "limit"), [({}, None), ({"rate_limit": 2.5}, 2.5)])
def test_it_is_off_unless_asked_for(flags: Dict[str, Any], limit: Optional[float]) -> None:
    assert policy_of(Settings(**flags)).rate_limit == limit
