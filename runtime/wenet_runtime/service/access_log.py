"""One line for one request of so many, and for every one that was refused or failed.

A line holds nothing that a client made up but its request id, which has been checked: no query, no header, no name.
"""

import logging
import time
from typing import Any, Callable, Dict, Mapping, Optional

from wenet_runtime.service.envelope import Scope
from wenet_runtime.service.pages import PAGES
from wenet_runtime.service.problems import PROBLEMS

ACCESS = "wenet_runtime.access"  # the logger
MODEL = "/v2/models/{model}"
MODE = MODEL + "/versions/{version}"
TEMPLATES = frozenset(
    (
        "/infer", "/modes", "/metrics", "/openapi.json", *PAGES,
        "/v2", "/v2/models/stats", "/v2/health", "/v2/health/live", "/v2/health/ready",
        *(one + end for one in (MODEL, MODE) for end in ("", "/infer", "/ready", "/stats")),
        *(f"/admin/{end}" for end in ("policy", "bundle", "rollback", "drain", "recalibrate")),
    )
)  # fmt: skip
OTHER = "other"  # a path that is none of ours

_LOG = logging.getLogger(ACCESS)


class AccessLog:
    """Writes the lines. All of it happens on the event loop, so without a lock.

    Args:
        every: of so many requests that were answered, one has a line.
        clock: monotonic, s.
    """

    def __init__(self, every: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._answered = 0

    def __call__(self, scope: Scope) -> None:
        """A request is over: `wenet.reply` in its scope is the message that began its reply, if there was one."""
        reply: Optional[Mapping[str, Any]] = scope.get("wenet.reply")
        if reply is not None and reply["status"] < 400:
            self._answered += 1
            if self._answered % self._every:
                return
        status = 500 if reply is None else reply["status"]
        path = template_of(scope["path"])
        fields: Dict[str, Any] = {"method": scope["method"], "path": path, "status": status}
        headers = {} if reply is None else dict(reply["headers"])
        if b"wenet-mode" in headers:
            fields["mode"] = headers[b"wenet-mode"].decode("latin-1")
        reason = headers.get(b"wenet-mode-reason")
        told = scope.get("wenet.problem") if reason is None else reason.decode("latin-1")
        if told is not None:
            fields["reason"] = told
        fields["latency_ms"] = round((self._clock() - scope["wenet.start_s"]) * 1e3, 3)
        budget_ms = budget_ms_of(scope)
        if budget_ms is not None:
            fields["budget_ms"] = budget_ms
        fields["request_id"] = scope["wenet.request_id"]
        _LOG.info("%s %s %d", scope["method"], path, status, extra={"fields": fields})

    def refused(self, slug: str) -> None:
        """A problem was the answer before there was a request."""
        status = PROBLEMS[slug][0]
        _LOG.info("refused %d", status, extra={"fields": {"status": status, "reason": slug}})


def template_of(path: str) -> str:
    """A path as the API's description names it, `OTHER` if it is none of those: what clients call things is theirs."""
    parts = path.split("/")
    if path.startswith("/v2/models/") and path not in TEMPLATES:
        parts[3] = "{model}"
        if len(parts) > 5 and parts[4] == "versions":
            parts[5] = "{version}"
    template = "/".join(parts)
    return template if template in TEMPLATES else OTHER


def budget_ms_of(scope: Scope) -> Optional[float]:
    """The budget that held for a request, ms; None without one, or if it did not come so far."""
    asked = scope.get("wenet.asked")
    budget_ms: Optional[float] = None if asked is None else asked.options.effective_ms
    return budget_ms
