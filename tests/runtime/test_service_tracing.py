"""Traces: a span of a request with its steps, within the trace of whoever called; nothing at all unless asked for."""

import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from wenet_runtime.budget import Budget, Deadline, RequestOptions
from wenet_runtime.errors import SettingsError
from wenet_runtime.service import tracing
from wenet_runtime.service.decisions import Asked
from wenet_runtime.service.tracing import Tracing, open_tracing, traces_url
from wenet_runtime.settings import Settings

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TIMING = (
    b'recv;dur=0.600, decode;dur=1.200, queue;dur=0.400, infer;dur=29.100;desc="batch=3", '
    b"encode;dur=0.100, total;dur=31.400"
)
REPLY = [
    (b"wenet-mode", b"m3"),
    (b"wenet-mode-reason", b"fits"),
    (b"wenet-predicted-ms", b"29.8"),
    (b"wenet-latency-ms", b"31.4"),
    (b"wenet-budget-met", b"true"),
    (b"wenet-energy-mj", b"120.5"),
    (b"wenet-energy-source", b"sim"),
    (b"server-timing", TIMING),
]


def scope_of(status: int = 200, headers: Any = REPLY, given: Any = (), **members: Any) -> Dict[str, Any]:
    """A request that is over after 40 ms."""
    return {
        "type": "http",
        "method": "POST",
        "path": "/v2/models/tiny/infer",
        "headers": [(b"authorization", b"Bearer sesame"), *given],
        "wenet.start_s": time.monotonic() - 0.04,
        "wenet.request_id": "r-1",
        "wenet.reply": {"status": status, "headers": headers},
        **members,
    }


def traceparent(sampled: bool = True) -> Tuple[bytes, bytes]:
    return b"traceparent", f"00-{TRACE}-{CALLER}-{'01' if sampled else '00'}".encode()


class Kept:
    """A tracing whose spans are looked at."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._spans = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracing = Tracing(provider)

    def of(self, scope: Dict[str, Any]) -> List[Any]:
        """The spans of one request, its own first."""
        self._spans.clear()
        self.tracing(scope)
        return sorted(self._spans.get_finished_spans(), key=lambda span: (span.kind.name != "SERVER", span.start_time))


@pytest.fixture
def kept() -> Iterator[Kept]:
    pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed here: wenet-runtime[otel]")
    one = Kept()
    yield one
    one.tracing.close()


def test_a_request_is_a_span_with_its_steps_in_their_order(kept: Kept) -> None:
    before_ns = time.time_ns()
    server, *steps = kept.of(scope_of())
    after_ns = time.time_ns()
    assert (server.name, server.kind.name) == ("POST /v2/models/{model}/infer", "SERVER")
    assert before_ns <= server.end_time <= after_ns
    assert 40e6 <= server.end_time - server.start_time <= 40e6 + (after_ns - before_ns) + 1e9
    assert [one.name for one in steps] == ["decode", "queue", "infer"]
    assert {(one.parent.span_id, one.context.trace_id) for one in steps} == {
        (server.context.span_id, server.context.trace_id)
    }
    assert [(one.start_time - server.start_time) / 1e6 for one in steps] == pytest.approx([0.6, 1.8, 2.2])
    assert [(one.end_time - one.start_time) / 1e6 for one in steps] == pytest.approx([1.2, 0.4, 29.1])


def test_a_span_says_what_was_chosen_and_why(kept: Kept) -> None:
    options = RequestOptions(budget=Budget(latency_ms=50.0))
    server = kept.of(scope_of(**{"wenet.asked": Asked("r-1", 3, options, Deadline(0.0, 50.0))}))[0]
    assert dict(server.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v2/models/{model}/infer",
        "http.response.status_code": 200,
        "wenet.request_id": "r-1",
        "wenet.mode": "m3",
        "wenet.reason": "fits",
        "wenet.predicted_ms": 29.8,
        "wenet.latency_ms": 31.4,
        "wenet.budget_ms": 50.0,
        "wenet.budget_met": True,
        "wenet.energy_mj": 120.5,
        "wenet.energy_source": "sim",
        "wenet.batch_rows": 3,
    }
    assert server.status.status_code.name == "UNSET"


@pytest.mark.parametrize(("status", "code"), [(422, "UNSET"), (503, "ERROR")])
def test_a_refusal_has_no_steps_and_its_problem_for_a_reason(kept: Kept, status: int, code: str) -> None:
    scope = scope_of(status, [(b"server-timing", b"total;dur=0.300")], **{"wenet.problem": "queue-full"})
    (server,) = kept.of(scope)
    assert (server.attributes["wenet.reason"], server.attributes["error.type"]) == ("queue-full", "queue-full")
    assert server.status.status_code.name == code


def test_a_request_without_a_reply_is_an_error(kept: Kept) -> None:
    scope = scope_of()
    del scope["wenet.reply"]
    (server,) = kept.of(scope)
    assert server.attributes["http.response.status_code"] == 500
    assert server.status.status_code.name == "ERROR"


def test_the_caller_s_trace_goes_on(kept: Kept) -> None:
    server, *steps = kept.of(scope_of(given=[traceparent(), (b"tracestate", b"a=b")]))
    assert (f"{server.context.trace_id:032x}", f"{server.parent.span_id:016x}") == (TRACE, CALLER)
    assert server.context.trace_state.get("a") == "b"
    assert {f"{one.context.trace_id:032x}" for one in steps} == {TRACE}


def test_a_caller_that_records_nothing_is_not_recorded(kept: Kept) -> None:
    assert kept.of(scope_of(given=[traceparent(sampled=False)])) == []


@pytest.mark.parametrize("given", [[(b"traceparent", b"nonsense")], [traceparent(), traceparent()]])
def test_a_parent_that_is_none_begins_a_trace_of_its_own(kept: Kept, given: Any) -> None:
    server = kept.of(scope_of(given=given))[0]
    assert server.parent is None
    assert f"{server.context.trace_id:032x}" != TRACE


def test_no_secret_of_a_request_stands_in_a_span(kept: Kept) -> None:
    assert "sesame" not in "".join(one.to_json() for one in kept.of(scope_of()))


def test_nothing_is_imported_and_nothing_traced_unless_it_was_asked_for() -> None:
    # OpenTelemetry's interface alone, with nothing behind it, may be imported by the web framework.
    assert open_tracing(Settings()) is None
    code = (
        "import sys, wenet_runtime.cli.serve, wenet_runtime.service.tracing as tracing\n"
        "from wenet_runtime.settings import Settings\n"
        "assert tracing.open_tracing(Settings()) is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("settings", [{"otel": True}, {"otel_endpoint": "http://127.0.0.1:4318"}])
def test_without_opentelemetry_the_start_says_what_to_install(
    settings: Dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("opentelemetry", "opentelemetry.exporter.otlp.proto.http.trace_exporter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=r"--otel needs OpenTelemetry.*pip install 'wenet-runtime\[otel\]'"):
        open_tracing(Settings(**settings))


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (None, None),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://collector/otlp/v1/traces", "https://collector/otlp/v1/traces"),
    ],
)
def test_a_collector_s_address_is_completed(endpoint: Any, url: Any) -> None:
    assert traces_url(endpoint) == url


class Slow:
    """A provider whose collector does not answer."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.gate = threading.Event()

    def get_tracer(self, *names: str) -> Any:
        return self._inner.get_tracer(*names)

    def shutdown(self) -> None:
        self.gate.wait()


def test_a_collector_that_does_not_answer_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="OpenTelemetry is not installed here")
    monkeypatch.setattr(tracing, "CLOSING_S", 0.01)
    slow = Slow(trace.TracerProvider(shutdown_on_exit=False))
    Tracing(slow).close()  # type: ignore[arg-type]
    slow.gate.set()


def test_the_service_s_name_is_ours_unless_a_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed here")

    def name() -> Any:
        one = open_tracing(Settings(otel_endpoint="http://127.0.0.1:9"))
        assert one is not None
        one.close()
        return one._provider.resource.attributes["service.name"]

    assert name() == "wenet-runtime"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "camera-3")
    assert name() == "camera-3"
