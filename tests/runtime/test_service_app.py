"""The application: one request's straight line, what its reply says, every refusal by its slug."""

import asyncio
import json
import math
import time
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, List

import httpx
import pytest

from tests.runtime.fakes import (
    PATIENCE_S,
    SLOW_MS,
    Client,
    LoadingBackend,
    SettableBackend,
    check_problem,
    make_service,
    ones,
    v2_body,
    wait_for,
)
from wenet_runtime import errors
from wenet_runtime.bundle import Bundle
from wenet_runtime.meters.sim import SimMeter
from wenet_runtime.service.app import create_app
from wenet_runtime.service.bodies import QUICK_BYTES
from wenet_runtime.service.options import Defaults
from wenet_runtime.service.problems import PROBLEMS

# Where a test of this folder shows each of them; those that stand at no other file are shown here.
ELSEWHERE = {
    "unknown-model": "test_service_routes_v2",
    "rate-limited": "test_service_rate_limit",
    "bad-header": "test_service_options",
    "conflicting-options": "test_service_options",
    "unknown-mode": "test_service_options",
    "too-large": "test_service_bodies",
    "unsupported-media": "test_service_bodies",
    "invalid-tensor": "test_service_bodies",
    "unauthorized": "test_service_envelope",
    "forbidden": "test_service_envelope",
    "body-timeout": "test_service_protocol",
    "head-too-large": "test_service_protocol",
    "conflict": "test_service_admin",
    "bundle-invalid": "test_service_admin",
}


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop turns until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never became so"
        await asyncio.sleep(0.001)


def occupied(
    client: Client, backend: SettableBackend, then: Callable[[], Awaitable[List[httpx.Response]]]
) -> List[httpx.Response]:
    """Run `then` while a first request (value 0) holds the engine; it must release it."""

    async def run() -> List[httpx.Response]:
        backend.hold()
        first = asyncio.ensure_future(client.arequest("POST", "/infer", json=v2_body(ones(value=0.0))))
        await until(lambda: bool(backend.runs))
        try:
            found = await then()
        finally:
            backend.release()
        return [await first, *found]

    return asyncio.run(run())


@pytest.mark.parametrize("slug", sorted(PROBLEMS))
def test_every_problem_is_shown_by_a_test(slug: str) -> None:
    file = Path(__file__).with_name(ELSEWHERE.get(slug, "test_service_app") + ".py")
    assert f'"{slug}"' in file.read_text(), f"{file.name} does not show it"


def test_a_reply_says_which_mode_why_predicted_and_measured(client: Client) -> None:
    response = client.infer(json=v2_body(ones(), id="42"))
    assert response.status_code == 200
    headers, body = response.headers, response.json()
    assert (headers["wenet-mode"], headers["wenet-mode-reason"]) == ("m2", "fits")
    assert float(headers["wenet-predicted-ms"]) > 0
    assert float(headers["wenet-latency-ms"]) > 0
    assert headers["wenet-energy-source"] == "none"
    for absent in ("wenet-budget-met", "wenet-energy-mj"):
        assert absent not in headers
    assert (body["model_name"], body["model_version"], body["id"]) == ("tiny", "m2", "42")
    parameters = body["parameters"]
    assert (parameters["wenet_mode"], parameters["wenet_mode_reason"]) == ("m2", "fits")
    assert parameters["wenet_predicted_ms"] == float(headers["wenet-predicted-ms"])
    assert 0 < parameters["wenet_latency_ms"] <= float(headers["wenet-latency-ms"])


def test_the_server_timing_has_every_part_and_they_do_not_exceed_the_total(client: Client) -> None:
    text = client.infer(json=v2_body(ones(3))).headers["server-timing"]
    parts = {one.split(";")[0]: float(one.split(";")[1][len("dur=") :]) for one in text.split(", ")}
    assert list(parts) == ["recv", "decode", "queue", "infer", "encode", "total"]
    assert "infer;dur=" in text
    assert ';desc="batch=3"' in text
    assert sum(parts.values()) - parts["total"] <= parts["total"] + 0.01


def test_a_budget_that_held_is_said_to_have(client: Client) -> None:
    response = client.infer(headers={"WeNet-Budget-Ms": "5000"})
    assert response.headers["wenet-budget-met"] == "true"
    assert response.json()["parameters"]["wenet_budget_met"] is True


@pytest.mark.parametrize(("budget_ms", "mode"), [("500000", "m2"), ("5000", "m1"), ("800", "m0")])
def test_the_mode_follows_the_budget(slow_client: Client, budget_ms: str, mode: str) -> None:
    assert slow_client.infer(headers={"WeNet-Budget-Ms": budget_ms}).headers["wenet-mode"] == mode


@pytest.mark.parametrize(
    "how",
    [
        {"json": v2_body(ones(), parameters={"wenet_budget_ms": 5000})},
        {"json": v2_body(ones(), parameters={"timeout": 5_000_000})},
        {"headers": {"grpc-timeout": "5S"}},
    ],
)
def test_budgets_of_the_body_and_of_protocols_work_as_the_header(slow_client: Client, how: Dict[str, Any]) -> None:
    assert slow_client.infer(**how).headers["wenet-mode"] == "m1"


@pytest.mark.parametrize(
    ("headers", "mode"),
    [
        ({}, "m1"),
        ({"WeNet-Budget-Ms": "500000"}, "m2"),
        ({"WeNet-Budget-Ms": "500000", "grpc-timeout": "800m"}, "m0"),
    ],
)
def test_the_daemon_s_budget_holds_unless_the_request_brings_its_own(
    bundle: Bundle, backend: SettableBackend, headers: Dict[str, str], mode: str
) -> None:
    service = make_service(bundle, backend, medians_ms=SLOW_MS, defaults=Defaults(budget_ms=5_000.0))
    response = Client(create_app(service)).infer(headers=headers)
    assert response.headers["wenet-mode"] == mode
    assert response.headers["wenet-budget-met"] == "true"
    service.runtime.close()


def test_pins_and_floors_are_kept(slow_client: Client) -> None:
    pinned = slow_client.infer(headers={"WeNet-Mode": "m0"})
    assert (pinned.headers["wenet-mode"], pinned.headers["wenet-mode-reason"]) == ("m0", "pinned")
    floor = {"WeNet-Min-Accuracy": "0.89", "WeNet-Budget-Ms": "5000"}
    check_problem(slow_client.infer(headers=floor), "budget-impossible", 422)


def test_a_budget_no_idle_device_meets_is_impossible(held_client: Client) -> None:
    response = held_client.infer(headers={"WeNet-Budget-Ms": "0.5"})
    members = check_problem(response, "budget-impossible", 422)
    assert (members["budget_ms"], members["fastest_mode"], members["executed"]) == (0.5, "m0", False)
    assert members["predicted_ms"] >= 1.0
    assert float(response.headers["wenet-predicted-ms"]) == pytest.approx(members["predicted_ms"], abs=0.01)
    assert float(response.headers["wenet-latency-ms"]) > 0
    assert response.headers["server-timing"].startswith("total;dur=")
    assert "retry-after" not in response.headers


def test_a_profiled_energy_does_not_do_where_power_is_required(bundle: Bundle, backend: SettableBackend) -> None:
    energies = {"m0": 1.0, "m1": 2.0, "m2": 3.0}
    for required, status in ((False, 200), (True, 422)):
        service = make_service(bundle, backend, energies_mj=energies, defaults=Defaults(require_power=required))
        response = Client(create_app(service)).infer(headers={"WeNet-Budget-Mj": "2"})
        assert response.status_code == status, response.text
        service.runtime.close()
    check_problem(response, "energy-unavailable", 422)


def test_a_trusted_proxy_s_deadline_is_one(bundle: Bundle, backend: SettableBackend) -> None:
    defaults = Defaults(trust_proxy_headers=True)
    service = make_service(bundle, backend, medians_ms=SLOW_MS, defaults=defaults)
    response = Client(create_app(service)).infer(headers={"x-envoy-expected-rq-timeout-ms": "5000"})
    assert response.headers["wenet-mode"] == "m1"
    service.runtime.close()


@pytest.mark.parametrize(
    ("coding", "status"), [("chunked", 200), ("Chunked", 200), ("gzip, chunked", 415), ("gzip", 415)]
)
def test_a_body_may_come_in_chunks_and_not_compressed(client: Client, coding: str, status: int) -> None:
    body = json.dumps(v2_body(ones())).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    response = client.infer(content=pieces(), headers={"Transfer-Encoding": coding, "Content-Type": "application/json"})
    assert response.status_code == status, response.text


def test_two_lengths_of_one_body_are_one_too_many(client: Client) -> None:
    headers = {"Content-Length": "2", "Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    check_problem(client.infer(content=b"{}", headers=headers), "malformed-request", 400)


def test_an_energy_budget_without_a_known_energy_is_unavailable(held_client: Client) -> None:
    check_problem(held_client.infer(headers={"WeNet-Budget-Mj": "5"}), "energy-unavailable", 422)


@pytest.mark.parametrize(("budget_mj", "met"), [("1000000", "true"), ("0.001", "false")])
def test_a_measured_energy_is_reported_and_judged(
    bundle: Bundle, backend: SettableBackend, budget_mj: str, met: str
) -> None:
    energies = {"m0": 1.0, "m1": 5.0, "m2": 25.0}
    service = make_service(bundle, backend, energies_mj=energies, meter=SimMeter())
    response = Client(create_app(service)).infer(headers={"WeNet-Budget-Mj": budget_mj})
    assert response.headers["wenet-budget-met"] == met
    assert response.headers["wenet-energy-source"] == "sim"
    assert float(response.headers["wenet-energy-mj"]) > 0
    assert response.headers["wenet-mode-reason"] == ("fits" if met == "true" else "degraded")
    service.runtime.close()


def test_what_cannot_be_met_behind_waiting_work_is_infeasible_now(
    slow_client: Client, backend: SettableBackend
) -> None:
    async def refused() -> List[httpx.Response]:
        return [await slow_client.arequest("POST", "/infer", json=v2_body(ones()), headers={"WeNet-Budget-Ms": "2000"})]

    first, response = occupied(slow_client, backend, refused)
    assert first.status_code == 200
    members = check_problem(response, "deadline-infeasible", 503)
    assert (members["budget_ms"], members["fastest_mode"], members["executed"]) == (2000.0, "m0", False)
    assert members["predicted_ms"] > 2000.0
    assert float(response.headers["wenet-predicted-ms"]) > 2000.0


def test_a_full_queue_says_so_and_when_to_come_back(held_client: Client, backend: SettableBackend) -> None:
    async def fill() -> List[httpx.Response]:
        assert held_client.service is not None
        runtime = held_client.service.runtime
        waiting = [
            asyncio.ensure_future(held_client.arequest("POST", "/infer", json=v2_body(ones()))) for _ in range(2)
        ]
        await until(lambda: runtime.queue_depth == 2)
        refused = await held_client.arequest("POST", "/infer", json=v2_body(ones()))
        backend.release()
        return [refused, *[await one for one in waiting]]

    first, refused, *waited = occupied(held_client, backend, fill)
    check_problem(refused, "queue-full", 503)
    assert [one.status_code for one in (first, *waited)] == [200, 200, 200]


@pytest.mark.parametrize("headers", [{"WeNet-Budget-Ms": "300"}, {"grpc-timeout": "300m", "WeNet-On-Miss": "late"}])
def test_work_that_expires_while_it_waits_is_answered_at_its_deadline_and_never_runs(
    held_client: Client, backend: SettableBackend, headers: Dict[str, str]
) -> None:
    async def expire() -> List[httpx.Response]:
        body = v2_body(ones(value=7.0))
        return [await held_client.arequest("POST", "/infer", json=body, headers=headers)]

    first, expired = occupied(held_client, backend, expire)
    members = check_problem(expired, "deadline-exceeded", 504)
    assert (members["executed"], members["budget_ms"]) == (False, 300.0)
    assert 300 <= float(expired.headers["wenet-latency-ms"]) < 300 + PATIENCE_S * 1e3
    assert first.status_code == 200
    assert held_client.infer().status_code == 200
    assert 7.0 not in backend.first_numbers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"WeNet-Budget-Ms": "250"}, 200),
        ({"WeNet-Budget-Ms": "250", "WeNet-On-Miss": "late"}, 200),
        ({"WeNet-Budget-Ms": "250", "WeNet-On-Miss": "reject"}, 504),
        ({"grpc-timeout": "250m"}, 504),
        ({"grpc-timeout": "250m", "WeNet-On-Miss": "late"}, 504),
    ],
)
def test_work_that_finishes_late_is_answered_as_it_asked(
    held_client: Client, backend: SettableBackend, headers: Dict[str, str], status: int
) -> None:
    async def finish_late() -> httpx.Response:
        backend.hold()
        asked = asyncio.ensure_future(held_client.arequest("POST", "/infer", json=v2_body(ones()), headers=headers))
        start_s = time.monotonic()
        await until(lambda: bool(backend.runs))
        await until(lambda: time.monotonic() > start_s + 0.3)  # the budget itself has to pass
        backend.release()
        return await asked

    response = asyncio.run(finish_late())
    if status == 200:
        assert response.status_code == 200
        assert response.headers["wenet-budget-met"] == "false"
    else:
        assert check_problem(response, "deadline-exceeded", 504)["executed"] is True
        assert response.headers["wenet-budget-met"] == "false"
        assert response.headers["wenet-mode"] == "m2"
        assert {"wenet-mode-reason", "wenet-predicted-ms", "wenet-energy-source"} <= set(response.headers)
    # Whatever the client was told: one request, which ran, and late.
    counted = [
        line for line in held_client.get("/metrics").text.splitlines() if line[:1] != "#" and "_created" not in line
    ]
    assert [line for line in counted if line.startswith("wenet_requests_total") and not line.endswith(" 0.0")] == [
        'wenet_requests_total{outcome="late"} 1.0'
    ]
    assert 'wenet_inference_duration_seconds_count{mode="m2"} 1.0' in counted
    assert 'wenet_budget_requests_total{met="false"} 1.0' in counted


def test_a_client_that_leaves_while_queued_is_never_executed(held_client: Client, backend: SettableBackend) -> None:
    assert held_client.service is not None
    runtime = held_client.service.runtime
    sent: List[Any] = []

    async def leave() -> List[httpx.Response]:
        gone = asyncio.Event()
        parts = iter([{"type": "http.request", "body": json.dumps(v2_body(ones(value=7.0))).encode()}])

        async def receive() -> Any:
            for part in parts:
                return part
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/infer", "headers": headers, "query_string": b""}
        call = asyncio.ensure_future(held_client.app({**scope, "http_version": "1.1"}, receive, send))
        await until(lambda: runtime.queue_depth == 1)
        gone.set()
        await call
        assert runtime.queue_depth == 0
        return []

    occupied(held_client, backend, leave)
    assert held_client.infer().status_code == 200
    assert 7.0 not in backend.first_numbers
    assert 'wenet_requests_total{outcome="cancelled"} 1.0' in held_client.get("/metrics").text


def test_a_connection_that_ends_within_the_body_runs_nothing(held_client: Client, backend: SettableBackend) -> None:
    sent: List[Any] = []

    async def cut() -> None:
        parts = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

        async def receive() -> Any:
            return next(parts)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/infer", "headers": headers, "query_string": b""}
        await held_client.app({**scope, "http_version": "1.1"}, receive, send)

    asyncio.run(cut())
    assert sent[0]["status"] == 499  # nobody reads it
    assert 'wenet_requests_total{outcome="cancelled"} 1.0' in held_client.get("/metrics").text
    assert backend.runs == []


@pytest.mark.parametrize("error", [errors.EngineError("CUDA error at 0x7f00 in /opt/engine.py"), KeyError("secret")])
def test_our_own_defect_is_internal_and_keeps_its_details_to_itself(
    held_client: Client, backend: SettableBackend, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    backend.error = error
    response = held_client.infer(headers={"X-Request-Id": "r-17", "WeNet-Mode": "m2"})  # no other may answer it
    members = check_problem(response, "internal", 500)
    assert float(response.headers["wenet-latency-ms"]) > 0
    assert "r-17" in caplog.text  # what the client reports leads to the traceback
    assert type(error).__name__ in caplog.text
    assert "request id" in members["detail"]
    assert "CUDA" not in json.dumps(members)
    assert held_client.infer().status_code == 200
    assert 'wenet_requests_total{outcome="error"} 1.0' in held_client.get("/metrics").text


def test_a_draining_server_is_not_ready_and_then_refuses_but_lives(held_client: Client) -> None:
    assert held_client.service is not None
    assert held_client.get("/v2/health/ready").json() == {"ready": True, "live": True}
    held_client.service.runtime.drain()
    check_problem(held_client.get("/v2/health/ready"), "draining", 503)
    served = held_client.infer()
    assert (served.status_code, served.headers["connection"]) == (200, "close")
    held_client.service.runtime.refuse()
    check_problem(held_client.infer(), "draining", 503)
    live = held_client.get("/v2/health/live")
    assert (live.status_code, live.json()) == (200, {"live": True})


def test_a_server_whose_engine_thread_is_gone_is_not_ready(held_client: Client) -> None:
    assert held_client.service is not None
    assert held_client.service.runtime.close()
    held_client.service.runtime.draining = False
    held_client.service.runtime.pool._engines["m0"] = None  # type: ignore[assignment]
    check_problem(held_client.get("/v2/health/ready"), "not-ready", 503)
    held_client.service.runtime.pool._engines.clear()


def test_under_reject_a_late_answer_teaches_what_replies_take(
    held_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert held_client.service is not None
    learned: List[float] = []
    monkeypatch.setattr(held_client.service.runtime, "observe_overhead", learned.append)
    monkeypatch.setattr("wenet_runtime.service.inference._must_be_timely", lambda *of: True)
    monkeypatch.setattr("wenet_runtime.service.inference._met", lambda *of: False)
    response = held_client.infer(headers={"WeNet-Budget-Ms": "5000", "WeNet-On-Miss": "reject"})
    check_problem(response, "deadline-exceeded", 504)
    assert len(learned) == 1


def test_a_large_body_is_decoded_beside_the_event_loop(client: Client) -> None:
    body = json.dumps(v2_body(ones(8)), indent=64).encode()
    assert len(body) > QUICK_BYTES
    assert client.infer(content=body, headers={"Content-Type": "application/json"}).status_code == 200


def test_a_server_without_a_loaded_mode_is_not_ready(held_client: Client) -> None:
    assert held_client.service is not None
    held_client.service.runtime.pool.close()
    check_problem(held_client.get("/v2/health/ready"), "not-ready", 503)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nowhere",
        "/modes/",
        "/infer/x",
        "/docs/x",
        "/ui/nothing.js",
        "/redoc",
        "/v2/repository/index",
        "/administrator",
    ],
)
def test_another_path_is_not_found(client: Client, path: str) -> None:
    check_problem(client.get(path), "not-found", 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/infer", "POST"),
        ("DELETE", "/infer", "POST"),
        ("POST", "/modes", "GET, HEAD"),
        ("PUT", "/metrics", "GET, HEAD"),
    ],
)
def test_another_method_is_not_allowed_and_the_right_one_named(
    client: Client, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    check_problem(response, "method-not-allowed", 405)
    assert response.headers["allow"] == allowed


def test_there_are_no_cors_headers(client: Client) -> None:
    response = client.infer(headers={"Origin": "http://elsewhere.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_pinned_mode_that_is_not_resident_is_not_ready_until_it_is_loaded(bundle: Bundle) -> None:
    backend = LoadingBackend(bundle)
    backend.hold_load("m1")
    service = make_service(bundle, backend, memory_kb=60)
    client = Client(create_app(service), service)
    problem = check_problem(client.infer(headers={"WeNet-Mode": "m1"}), "not-ready", 503)
    assert problem["detail"].startswith("mode m1 is being loaded")
    assert client.infer().headers["wenet-mode"] == "m0"  # whoever pins nothing is answered meanwhile
    resident = {mode["id"]: mode["resident"] for mode in client.get("/modes").json()["modes"]}
    assert resident == {"m2": False, "m1": False, "m0": True}
    backend.release_loads()
    pool = service.runtime.pool
    wait_for(pool, lambda: "m1" in pool.residency.resident)
    assert client.infer(headers={"WeNet-Mode": "m1"}).headers["wenet-mode"] == "m1"
    took_ms = pool.load_ms("m1") or 0.0
    backend.hold_load("m1")
    pool.evict("m1")
    again = check_problem(client.infer(headers={"WeNet-Mode": "m1"}), "not-ready", 503)
    assert again["retry_after_ms"] == max(1, math.ceil(took_ms))
    backend.release_loads()
    service.runtime.close()
