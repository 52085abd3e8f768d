"""Every request's decision is written down, with what was predicted and what came of it."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import pytest

from tests.runtime.fakes import SLOW_MS, Client, SettableBackend, make_service, ones, v2_body
from wenet_runtime import errors
from wenet_runtime.budget import Budget, Deadline, RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.decision import LIMITS, Decision
from wenet_runtime.decision_file import read_log
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.decision_summary import Summary
from wenet_runtime.policy import Choice
from wenet_runtime.result import Result
from wenet_runtime.service.app import create_app
from wenet_runtime.service.decisions import Asked, Decisions
from wenet_runtime.service.replies import encode


@pytest.fixture
def client(bundle: Bundle) -> Client:
    backend = SettableBackend(bundle)
    service = make_service(bundle, backend, medians_ms=SLOW_MS)
    return Client(create_app(service), service)


def latest(client: Client) -> List[Decision]:
    assert client.service is not None
    return client.service.decisions.log.latest()


def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every reply be ready an hour after its inference."""
    passed_s = [0.0]

    def slowly(*of: Any) -> Any:
        passed_s.append(3600.0)
        return encode(*of)

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s[-1])
    monkeypatch.setattr("wenet_runtime.service.inference.encode", slowly)
    monkeypatch.setattr("wenet_runtime.service.inference.time", clock)


def ask(client: Client, **headers: str) -> Any:
    names = {name: name.replace("_", "-") for name in headers}
    return client.infer(json=v2_body(ones()), headers={names[name]: value for name, value in headers.items()})


def test_an_answer_s_decision_says_what_was_asked_chosen_predicted_and_measured(client: Client) -> None:
    answer = ask(client, WeNet_Budget_Ms="5000", X_Request_Id="abc")
    assert answer.status_code == 200
    (one,) = latest(client)
    assert (one.request_id, one.outcome, one.reason, one.mode_id) == ("abc", "answered", "fits", "m1")
    assert (one.budget_ms, one.limits, one.rows, one.queued, one.batch_rows) == (5000.0, ("budget_ms",), 1, 1, 1)
    assert one.left_ms is not None
    assert 0 < one.left_ms <= 5000.0
    assert one.median_ms == pytest.approx(1000.0, rel=0.2)
    assert one.bound_ms is not None
    assert one.measured_ms is not None
    assert 0 < one.measured_ms < one.bound_ms
    assert one.passed_over is not None
    assert one.passed_over[:2] == ("m2", "too-slow")
    assert (one.attainment, one.slowdown) == (0.99, 1.0)


def test_a_refusal_s_decision_names_the_fastest_mode_and_what_it_would_take(client: Client) -> None:
    assert ask(client, WeNet_Budget_Ms="5", X_Request_Id="no").status_code == 422
    (one,) = latest(client)
    assert (one.request_id, one.outcome, one.reason, one.mode_id) == ("no", "refused", "budget-impossible", None)
    assert one.passed_over is not None
    assert one.passed_over[0] == "m0"
    assert one.passed_over[1] == "too-slow"
    assert one.limits == ("budget_ms",)


def test_work_that_ran_and_was_refused_as_late_is_written_down_with_its_prediction_and_measurement(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    late(monkeypatch)
    asked = {"WeNet_Budget_Ms": "5000", "WeNet_On_Miss": "reject", "X_Request_Id": "slow"}
    assert ask(client, **asked).status_code == 504
    (one,) = latest(client)
    assert (one.request_id, one.outcome, one.reason, one.mode_id) == ("slow", "late", "fits", "m1")
    assert one.median_ms is not None
    assert one.bound_ms is not None
    assert one.measured_ms is not None
    assert one.measured_ms > 5000
    summary = Summary()
    summary.add(one)
    assert summary.members()["coverage"] == {"count": 1, "within_bound": 0.0, "attainment": 0.99}


def test_a_refusal_s_decision_has_its_rows_its_company_and_its_budget_whoever_refuses(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(bundle, SettableBackend(bundle), medians_ms=SLOW_MS)
    client = Client(create_app(service), service)
    refusals = [errors.QueueFull("x"), errors.NotResident("x"), errors.EnergyUnavailable("x"), errors.Draining("x")]

    def refuse(*of: Any) -> Any:
        raise refusals.pop(0)

    monkeypatch.setattr(service.runtime, "submit", refuse)
    monkeypatch.setattr(type(service.runtime), "queue_depth", 7)
    slugs = ["queue-full", "not-ready", "energy-unavailable", "draining"]
    for _ in slugs:
        headers = {"WeNet-Budget-Ms": "5000", "grpc-timeout": "400m"}
        assert client.infer(json=v2_body(ones(3)), headers=headers).status_code in (422, 503)
    found = latest(client)
    assert [one.reason for one in found] == slugs
    for one in found:
        assert (one.rows, one.queued, one.budget_ms, one.outcome) == (3, 8, 400.0, "refused")
        assert one.limits == ("budget_ms", "deadline")
        assert one.left_ms is not None
        assert 0 < one.left_ms < 400
        assert one.passed_over is None


def test_a_refusal_for_the_sake_of_another_request_says_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.service is not None
    refusal = errors.InfeasibleBudget("x", budget_ms=5000.0, predicted_ms=300.0, fastest_mode="m0")
    refusal.why = "no-room"

    def refuse(*of: Any) -> Any:
        raise refusal

    monkeypatch.setattr(client.service.runtime, "submit", refuse)
    assert ask(client, WeNet_Budget_Ms="5000").status_code == 503
    (one,) = latest(client)
    assert one.passed_over == ("m0", "no-room", 300.0, 5000.0)


def test_the_power_budget_s_cap_is_a_limit(bundle: Bundle) -> None:
    service = make_service(bundle, SettableBackend(bundle), medians_ms=SLOW_MS)
    options = RequestOptions(Budget(energy_mj=9.0, min_accuracy=0.5), mode="m1", protocol_ms=50.0)
    choice = Choice("m1", "energy", 5.0, 3.0, cap_mj=4.5)
    result = Result({}, "m1", "energy", 6.0, 1.0, 5.0, 3.5, "sim", False, 10.006, 1, choice, 10.001, 2, 1.0)
    asked = Asked("r", 1, options, Deadline(10.0, options.effective_ms))
    service.decisions.answered(asked, result, 10.007)
    (one,) = service.decisions.log.latest()
    assert one.cap_mj == 4.5
    assert set(one.limits) == {"budget_mj", "min_accuracy", "mode", "deadline", "power_w"}
    assert set(one.limits) < set(LIMITS)


def test_what_is_no_decision_is_not_written_down(client: Client) -> None:
    assert ask(client, WeNet_Budget_Ms="soon").status_code == 400
    assert client.infer(content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    assert latest(client) == []


def test_modes_shows_the_latest_decisions_and_what_is_predicted_now(client: Client) -> None:
    ask(client, WeNet_Budget_Ms="5000")
    found = client.get("/modes").json()
    assert [one["reason"] for one in found["decisions"]] == ["fits"]
    assert found["decisions"][0]["mode_id"] == "m1"
    assert (found["power"], found["guard"]) == (None, None)
    predicted = {mode["id"]: mode["predicted_ms"] for mode in found["modes"]}
    assert predicted["m2"]["p50"] == pytest.approx(10_000.0, rel=0.05)
    assert predicted["m2"]["p99"] >= predicted["m2"]["p50"]


def test_a_log_file_holds_the_same(bundle: Bundle, tmp_path: Path) -> None:
    service = make_service(bundle, SettableBackend(bundle), medians_ms=SLOW_MS)
    path = tmp_path / "decisions.jsonl"
    with DecisionLog(path=path) as log:
        logged = Decisions(log, service.runtime.controller)
        service.active = replace(service.active, decisions=logged)
        client = Client(create_app(service))
        assert ask(client, WeNet_Budget_Ms="5000", X_Request_Id="one").status_code == 200
    reading = read_log(path)
    assert [(one.request_id, one.mode_id) for one in reading] == [("one", "m1")]
    assert reading.bad == 0


def test_escalations_are_charged_to_the_client_s_address(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.service is not None
    submit, clients = client.service.runtime.submit, []

    def noted(inputs: Any, options: Any, start_s: float, who: str = "") -> Any:
        clients.append(who)
        return submit(inputs, options, start_s, who)

    monkeypatch.setattr(client.service.runtime, "submit", noted)
    assert ask(client).status_code == 200
    assert clients == ["127.0.0.1"]


def test_a_budget_that_ends_while_its_reply_is_encoded_is_told_alike_in_headers_and_body(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    late(monkeypatch)
    reply = ask(client, WeNet_Budget_Ms="5000")
    assert reply.status_code == 200
    assert reply.headers["wenet-budget-met"] == "false"
    assert reply.json()["parameters"]["wenet_budget_met"] is False
