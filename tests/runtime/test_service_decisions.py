"""Every request's decision is written down, with what was predicted and what came of it."""

from pathlib import Path
from typing import Any, List

import pytest

from tests.runtime.fakes import SLOW_MS, Client, SettableBackend, make_service, ones, v2_body
from wenet_runtime.bundle import Bundle
from wenet_runtime.decision import Decision
from wenet_runtime.decision_file import read_log
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.service.app import create_app
from wenet_runtime.service.decisions import Decisions


@pytest.fixture
def client(bundle: Bundle) -> Client:
    backend = SettableBackend(bundle)
    service = make_service(bundle, backend, medians_ms=SLOW_MS)
    return Client(create_app(service), service)


def latest(client: Client) -> List[Decision]:
    assert client.service is not None
    return client.service.decisions.log.latest()


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
        client = Client(
            create_app(type(service)(service.bundle, service.runtime, service.metrics, service.defaults, logged))
        )
        assert ask(client, WeNet_Budget_Ms="5000", X_Request_Id="one").status_code == 200
    reading = read_log(path)
    assert [(one.request_id, one.mode_id) for one in reading] == [("one", "m1")]
    assert reading.bad == 0
