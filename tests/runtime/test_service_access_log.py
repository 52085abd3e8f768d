"""The access log: one of so many answered requests, every other, and nothing in it that is a client's secret."""

import asyncio
import logging
from typing import Any, Dict, Iterator, List, Optional

import pytest

from wenet_runtime.budget import Budget, Deadline, RequestOptions
from wenet_runtime.service.access_log import ACCESS, OTHER, TEMPLATES, AccessLog, template_of
from wenet_runtime.service.decisions import Asked
from wenet_runtime.service.envelope import Envelope
from wenet_runtime.service.openapi import openapi
from wenet_runtime.service.pages import PAGES


def scope_of(status: Optional[int] = 200, path: str = "/infer", **members: Any) -> Dict[str, Any]:
    """A request that is over."""
    scope: Dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"top_k=1&token=sesame",
        "headers": [(b"authorization", b"Bearer sesame-sesame-sesame")],
        "wenet.start_s": 10.0,
        "wenet.request_id": "r-1",
        **members,
    }
    if status is not None:
        headers = [(b"content-type", b"x"), (b"wenet-mode", b"m2"), (b"wenet-mode-reason", b"fits")]
        scope["wenet.reply"] = {"status": status, "headers": headers if status == 200 else []}
    return scope


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: List[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[List[logging.LogRecord]]:
    caplog.set_level(logging.INFO, logger=ACCESS)
    kept = Kept()
    logging.getLogger(ACCESS).addHandler(kept)
    yield kept.records
    logging.getLogger(ACCESS).removeHandler(kept)


def fields(line: logging.LogRecord) -> Dict[str, Any]:
    found: Dict[str, Any] = line.fields  # type: ignore[attr-defined]
    return found


def log(every: int = 1) -> AccessLog:
    return AccessLog(every, clock=lambda: 10.0031)


def test_a_line_says_how_a_request_was_answered(lines: List[logging.LogRecord]) -> None:
    options = RequestOptions(budget=Budget(latency_ms=50.0))
    log()(scope_of(**{"wenet.asked": Asked("r-1", 1, options, Deadline(0.0, 50.0))}))
    assert lines[0].getMessage() == "POST /infer 200"
    assert fields(lines[0]) == {
        "method": "POST",
        "path": "/infer",
        "status": 200,
        "mode": "m2",
        "reason": "fits",
        "latency_ms": 3.1,
        "budget_ms": 50.0,
        "request_id": "r-1",
    }


def test_a_refusal_s_reason_is_its_problem(lines: List[logging.LogRecord]) -> None:
    log()(scope_of(503, **{"wenet.problem": "queue-full"}))
    assert fields(lines[0]) == {
        "method": "POST",
        "path": "/infer",
        "status": 503,
        "reason": "queue-full",
        "latency_ms": 3.1,
        "request_id": "r-1",
    }


def test_one_of_so_many_answers_has_a_line_and_every_error_has_one(lines: List[logging.LogRecord]) -> None:
    access = log(every=3)
    for status in (200, 200, 404, 503, 200, 499, 200, 304, 202, 500):
        access(scope_of(status))
    assert [fields(one)["status"] for one in lines] == [404, 503, 200, 499, 202, 500]


def test_a_request_without_a_reply_failed(lines: List[logging.LogRecord]) -> None:
    log(every=100)(scope_of(None))
    assert fields(lines[0])["status"] == 500


def test_what_was_refused_before_it_was_a_request_has_its_line(lines: List[logging.LogRecord]) -> None:
    log(every=100).refused("body-timeout")
    assert fields(lines[0]) == {"status": 408, "reason": "body-timeout"}


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/infer", "/infer"),
        ("/v2/models/tiny", "/v2/models/{model}"),
        ("/v2/models/tiny/infer", "/v2/models/{model}/infer"),
        ("/v2/models/stats", "/v2/models/stats"),
        ("/v2/models/stats/infer", "/v2/models/{model}/infer"),
        ("/v2/models/tiny/versions/m1/infer", "/v2/models/{model}/versions/{version}/infer"),
        ("/v2/models/tiny/versions/m1", "/v2/models/{model}/versions/{version}"),
        ("/v2/models/a/b/c/d", OTHER),
        ("/v2/models/", "/v2/models/{model}"),
        ("/../etc/passwd", OTHER),
        ("/sesame-sesame-sesame", OTHER),
        ("", OTHER),
    ],
)
def test_a_path_is_told_as_the_api_names_it(path: str, template: str) -> None:
    assert template_of(path) == template


def test_the_paths_are_those_of_the_api_and_the_pages() -> None:
    assert {*openapi()["paths"], *PAGES} == TEMPLATES


def test_nothing_of_a_query_a_header_or_an_unknown_path_is_told(lines: List[logging.LogRecord]) -> None:
    log()(scope_of())
    log()(scope_of(404, path="/sesame"))
    assert len(lines) == 2
    assert "sesame" not in "".join(str(vars(one)) for one in lines)


async def reply_then_fail(scope: Any, receive: Any, send: Any) -> None:
    """An application that breaks after it has replied, or before."""
    if scope["path"] == "/infer":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    raise OSError("broken")


@pytest.mark.parametrize(("path", "status"), [("/infer", 200), ("/modes", None)])
def test_a_request_is_told_of_when_it_is_over_however_that_came(path: str, status: Optional[int]) -> None:
    told: List[Any] = []
    envelope = Envelope(reply_then_fail, hosts=None, closing=lambda: False, ended=[told.append])

    async def send(message: Any) -> None:
        assert not told  # what is told comes after the reply

    with pytest.raises(OSError, match="broken"):
        asyncio.run(envelope({"type": "http", "path": path, "headers": []}, None, send))  # type: ignore[arg-type]
    assert [scope.get("wenet.reply", {}).get("status") for scope in told] == [status]


def test_what_the_envelope_refuses_is_told_with_its_problem() -> None:
    told: List[Any] = []
    refused: List[str] = []
    envelope = Envelope(reply_then_fail, hosts=None, closing=lambda: False, refused=refused.append, ended=[told.append])

    async def send(message: Any) -> None:
        """Nobody reads it."""

    asyncio.run(envelope({"type": "http", "method": "POST", "path": "/admin/drain", "headers": []}, None, send))  # type: ignore[arg-type]
    assert refused == ["forbidden"]
    assert (told[0]["wenet.problem"], told[0]["wenet.reply"]["status"]) == ("forbidden", 403)
