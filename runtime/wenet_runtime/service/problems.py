"""Errors over HTTP: RFC 9457 problem+json, one slug each, never a traceback, path or token."""

import math
import time
from typing import Any, Dict, Mapping, Optional, Tuple

from starlette.requests import Request
from starlette.responses import Response

from wenet_runtime import errors
from wenet_runtime.service.encoding import json_bytes

# slug: (status, title)
PROBLEMS: Mapping[str, Tuple[int, str]] = {
    "malformed-request": (400, "Request cannot be parsed"),
    "bad-header": (400, "A header has an impossible value"),
    "unauthorized": (401, "A token is needed"),
    "forbidden": (403, "Not allowed"),
    "not-found": (404, "No such path"),
    "unknown-model": (404, "No such model"),
    "unknown-mode": (404, "No such mode"),
    "method-not-allowed": (405, "Method not allowed"),
    "body-timeout": (408, "Request not received in time"),
    "conflict": (409, "Not possible in this state"),
    "too-large": (413, "Request too large"),
    "unsupported-media": (415, "Unsupported media type"),
    "invalid-tensor": (422, "Tensor does not fit the model"),
    "conflicting-options": (422, "Options contradict each other"),
    "budget-impossible": (422, "Budget cannot be met on this device"),
    "energy-unavailable": (422, "Energy is unknown on this device"),
    "bundle-invalid": (422, "Bundle cannot be served"),
    "rate-limited": (429, "This client asks too often"),
    "head-too-large": (431, "Request head too large"),
    "internal": (500, "Internal error"),
    "queue-full": (503, "Too many requests are waiting"),
    "deadline-infeasible": (503, "Budget cannot be met now"),
    "draining": (503, "Server is shutting down"),
    "not-ready": (503, "Server is not ready"),
    "deadline-exceeded": (504, "Budget ended before the answer"),
}
# These say why no mode answered a request that there was nothing wrong with; they are written down as decisions.
DECIDED = (
    "budget-impossible", "energy-unavailable", "queue-full", "deadline-infeasible", "draining", "not-ready",
    "deadline-exceeded",
)  # fmt: skip
PROBLEM_JSON = "application/problem+json"


class Problem(Exception):
    """An answer that is an error.

    Args:
        slug: a key of `PROBLEMS`.
        detail: one line: what was wrong, what was found, what to do.
        extra: further members of the body, those of value None left out.
        headers: further response headers.
    """

    def __init__(
        self,
        slug: str,
        detail: str,
        extra: Optional[Mapping[str, Any]] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> None:
        super().__init__(detail)
        self.slug = slug
        self.status, self.title = PROBLEMS[slug]
        self.detail = detail
        self.extra = {name: value for name, value in (extra or {}).items() if value is not None}
        self.headers = dict(headers or {})


_BY_ERROR = (
    (errors.UnknownMode, "unknown-mode"),
    (errors.BudgetImpossible, "budget-impossible"),
    (errors.InfeasibleBudget, "deadline-infeasible"),
    (errors.NotResident, "not-ready"),
    (errors.NotReady, "not-ready"),
    (errors.QueueFull, "queue-full"),
    (errors.Draining, "draining"),
    (errors.EnergyUnavailable, "energy-unavailable"),
    (errors.InvalidTensor, "invalid-tensor"),
    (errors.BudgetError, "bad-header"),
    (errors.DeadlineExceeded, "deadline-exceeded"),
)


def problem_of(error: Exception) -> Problem:
    """The problem an error is shown as. Whatever was not raised on purpose is `internal`, without its text."""
    if isinstance(error, Problem):
        return error
    for kind, slug in _BY_ERROR:
        if isinstance(error, kind):
            return Problem(slug, str(error), _extra(error), _predicted(error))
    return Problem("internal", "the server failed to answer this request: report it with its request id")


def _extra(error: Exception) -> Dict[str, Any]:
    if isinstance(error, errors.DeadlineExceeded):
        return {"budget_ms": error.budget_ms, "executed": error.executed}
    if isinstance(error, errors.Refused):
        return {
            "budget_ms": error.budget_ms,
            "predicted_ms": _rounded(error.predicted_ms),
            "fastest_mode": error.fastest_mode,
            "executed": False,
            "retry_after_ms": _retry_after_ms(error),
        }
    return {}


def _retry_after_ms(error: errors.Refused) -> Optional[int]:
    """When to come back, in whole ms; None if nothing tells."""
    wait_ms = error.retry_after_ms
    if wait_ms is None and isinstance(error, errors.InfeasibleBudget) and error.predicted_ms and error.budget_ms:
        missing_ms = error.predicted_ms - error.budget_ms
        wait_ms = missing_ms if missing_ms > 0 else None  # it is not the mean that was too long
    return None if wait_ms is None or not math.isfinite(wait_ms) else max(1, math.ceil(wait_ms))


def _predicted(error: Exception) -> Dict[str, str]:
    predicted_ms = _rounded(getattr(error, "predicted_ms", None))
    return {} if predicted_ms is None else {"WeNet-Predicted-Ms": f"{predicted_ms:.3f}"}


def _rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None or not math.isfinite(value) else round(value, 3)


def timed(problem: Problem, scope: Mapping[str, Any]) -> Problem:
    """The problem, saying as every reply to a request for inference does how long that took."""
    latency_ms = (time.monotonic() - scope["wenet.start_s"]) * 1e3
    problem.headers["WeNet-Latency-Ms"] = f"{latency_ms:.3f}"
    problem.headers["Server-Timing"] = f"total;dur={latency_ms:.3f}"
    return problem


def problem_response(problem: Problem, request: Request) -> Response:
    """Render a problem of a request."""
    request.scope["wenet.problem"] = problem.slug  # for whoever writes down how the request ended
    content, headers = problem_content(problem, request.scope.get("wenet.request_id", "-"))
    return Response(content, problem.status, headers)


def problem_content(problem: Problem, request_id: str) -> Tuple[bytes, Dict[str, str]]:
    """A problem's body and headers, for whoever has no request yet; every 429 and 503 says when to come back."""
    members: Dict[str, Any] = {
        "type": f"urn:wenet:problem:{problem.slug}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": f"urn:wenet:request:{request_id}",
        "error": problem.detail,
        **problem.extra,
    }
    headers = {"Content-Type": PROBLEM_JSON, **problem.headers}
    if problem.status in (429, 503):
        members.setdefault("retry_after_ms", 1000)
        headers["Retry-After"] = str(max(1, math.ceil(members["retry_after_ms"] / 1000)))
    return json_bytes(members), headers
