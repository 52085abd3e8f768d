"""Every error raised on purpose has its slug and status; whatever else happens is `internal`."""

import json
import math
from typing import Any

import pytest
from starlette.requests import Request

from wenet_runtime import errors
from wenet_runtime.service.problems import PROBLEMS, Problem, problem_of, problem_response

REQUEST = Request({"type": "http", "headers": [], "wenet.request_id": "r1"})


@pytest.mark.parametrize(
    ("error", "slug", "status"),
    [
        (errors.UnknownMode("x"), "unknown-mode", 404),
        (errors.BudgetImpossible("x"), "budget-impossible", 422),
        (errors.InfeasibleBudget("x"), "deadline-infeasible", 503),
        (errors.QueueFull("x"), "queue-full", 503),
        (errors.NotResident("x"), "not-ready", 503),
        (errors.Draining("x"), "draining", 503),
        (errors.EnergyUnavailable("x"), "energy-unavailable", 422),
        (errors.InvalidTensor("x"), "invalid-tensor", 422),
        (errors.BudgetError("x"), "bad-header", 400),
        (errors.DeadlineExceeded("x", executed=True), "deadline-exceeded", 504),
        (Problem("too-large", "x"), "too-large", 413),
    ],
)
def test_an_error_on_purpose_has_a_slug_and_its_text(error: Exception, slug: str, status: int) -> None:
    problem = problem_of(error)
    assert (problem.slug, problem.status, problem.detail) == (slug, status, "x")


@pytest.mark.parametrize("error", [errors.EngineError("/secret/path"), KeyError("token"), errors.BundleError("/x")])
def test_any_other_error_is_internal_without_its_text(error: Exception) -> None:
    problem = problem_of(error)
    assert (problem.slug, problem.status) == ("internal", 500)
    assert str(error) not in problem.detail


@pytest.mark.parametrize("slug", sorted(PROBLEMS))
def test_every_problem_is_rendered_in_full(slug: str) -> None:
    response = problem_response(Problem(slug, "what was wrong"), REQUEST)
    members = json.loads(bytes(response.body))
    status, title = PROBLEMS[slug]
    assert response.status_code == members["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert members["type"] == f"urn:wenet:problem:{slug}"
    assert (members["title"], members["detail"], members["error"]) == (title, "what was wrong", "what was wrong")
    assert members["instance"] == "urn:wenet:request:r1"
    assert ("retry-after" in response.headers) == (status in (429, 503))
    assert ("retry_after_ms" in members) == (status in (429, 503))


@pytest.mark.parametrize(
    ("predicted_ms", "retry_ms", "retry_s"), [(20.5, 11, "1"), (2510.0, 2500, "3"), (10.2, 1, "1"), (9.0, 1000, "1")]
)
def test_an_infeasible_budget_says_when_it_may_be_met(predicted_ms: float, retry_ms: int, retry_s: str) -> None:
    error = errors.InfeasibleBudget("x", budget_ms=10.0, predicted_ms=predicted_ms, fastest_mode="m0")
    response = problem_response(problem_of(error), REQUEST)
    members = json.loads(bytes(response.body))
    assert (members["retry_after_ms"], response.headers["retry-after"]) == (retry_ms, retry_s)
    assert (members["budget_ms"], members["predicted_ms"], members["fastest_mode"]) == (10.0, predicted_ms, "m0")
    assert members["executed"] is False
    assert response.headers["wenet-predicted-ms"] == f"{predicted_ms:.3f}"


@pytest.mark.parametrize(("wait_ms", "told_ms"), [(100.0, 100), (99.2, 100), (0.0, 1), (math.inf, 1000)])
def test_the_wait_that_the_refusal_knows_is_told(wait_ms: float, told_ms: int) -> None:
    error = errors.InfeasibleBudget("x", budget_ms=10.0, predicted_ms=12.0, fastest_mode="m0")
    error.retry_after_ms = wait_ms
    assert json.loads(bytes(problem_response(problem_of(error), REQUEST).body))["retry_after_ms"] == told_ms


def test_a_prediction_that_is_no_number_is_left_out() -> None:
    problem = problem_of(errors.BudgetImpossible("x", budget_ms=10.0, predicted_ms=math.inf, fastest_mode="m0"))
    assert problem.headers == {}
    assert problem.extra == {"budget_ms": 10.0, "fastest_mode": "m0", "executed": False}


@pytest.mark.parametrize("executed", [True, False])
def test_an_exceeded_deadline_says_whether_it_ran(executed: bool) -> None:
    error: Any = errors.DeadlineExceeded("x", executed=executed, budget_ms=5.0)
    assert problem_of(error).extra == {"budget_ms": 5.0, "executed": executed}


def test_members_that_are_unknown_are_left_out() -> None:
    assert Problem("not-found", "x", {"budget_ms": None, "executed": False}).extra == {"executed": False}
