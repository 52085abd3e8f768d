"""Requests as spans of OpenTelemetry, made of what their replies say once they are sent.

Only this module knows OpenTelemetry, and only where tracing was asked for is it imported.
"""

import re
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from wenet_runtime import __version__
from wenet_runtime.errors import SettingsError
from wenet_runtime.service.access_log import budget_ms_of, template_of
from wenet_runtime.service.envelope import Scope
from wenet_runtime.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

STEPS = ("decode", "queue", "infer")  # one follows the other
NAME = "wenet-runtime"
CLOSING_S = 2.0
# response header: attribute, and how its text is read
_ATTRIBUTES: Mapping[bytes, Tuple[str, Any]] = {
    b"wenet-mode": ("wenet.mode", str),
    b"wenet-mode-reason": ("wenet.reason", str),
    b"wenet-predicted-ms": ("wenet.predicted_ms", float),
    b"wenet-latency-ms": ("wenet.latency_ms", float),
    b"wenet-budget-met": ("wenet.budget_met", lambda text: text == "true"),
    b"wenet-energy-mj": ("wenet.energy_mj", float),
    b"wenet-energy-source": ("wenet.energy_source", str),
}
_TIMED = re.compile(r"(\w+);dur=([0-9.]+)")
_BATCH = re.compile(r'desc="batch=([0-9]+)"')


class Tracing:
    """Makes a span of each request that is over, with a child for each of its steps.

    Args:
        provider: of the tracer; its sampler decides, and so does whoever called with a `traceparent`.
    """

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._trace = trace
        self._tracer = provider.get_tracer(NAME, __version__)
        self._continue = TraceContextTextMapPropagator().extract

    def __call__(self, scope: Scope) -> None:
        """A request is over: `wenet.reply` in its scope is the message that began its reply, if there was one."""
        end_ns = time.time_ns()
        start_ns = end_ns - round((time.monotonic() - scope["wenet.start_s"]) * 1e9)
        reply: Mapping[str, Any] = scope.get("wenet.reply") or {"status": 500, "headers": ()}
        path = template_of(scope["path"])
        span = self._tracer.start_span(
            f"{scope['method']} {path}",
            context=self._continue(_parent(scope)),
            kind=self._trace.SpanKind.SERVER,
            start_time=start_ns,
            attributes={"http.request.method": scope["method"], "http.route": path},
        )
        if span.is_recording():
            headers = {name: value.decode("latin-1") for name, value in reply["headers"]}
            timing = headers.get(b"server-timing", "")
            span.set_attributes(_attributes(scope, reply["status"], headers, timing))
            if reply["status"] >= 500:
                span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))
            inside = self._trace.set_span_in_context(span)
            for name, from_ns, to_ns in _steps(start_ns, timing):
                self._tracer.start_span(name, context=inside, start_time=from_ns).end(to_ns)
        span.end(end_ns)

    def close(self) -> None:
        """Send what is left. A collector that does not answer holds nobody up."""
        sending = threading.Thread(target=self._provider.shutdown, name="wenet-traces", daemon=True)
        sending.start()
        sending.join(CLOSING_S)


def _parent(scope: Scope) -> Dict[str, str]:
    """W3C's fields of the request; several of one name are none."""
    found: Dict[str, List[str]] = {}
    for name, value in scope["headers"]:
        if name in (b"traceparent", b"tracestate"):
            found.setdefault(name.decode("ascii"), []).append(value.decode("latin-1"))
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _attributes(scope: Scope, status: int, headers: Mapping[bytes, str], timing: str) -> Dict[str, Any]:
    attributes: Dict[str, Any] = {"http.response.status_code": status, "wenet.request_id": scope["wenet.request_id"]}
    for header, (name, read) in _ATTRIBUTES.items():
        if header in headers:
            attributes[name] = read(headers[header])
    budget_ms = budget_ms_of(scope)
    if budget_ms is not None:
        attributes["wenet.budget_ms"] = budget_ms
    batch = _BATCH.search(timing)
    if batch is not None:
        attributes["wenet.batch_rows"] = int(batch.group(1))
    problem = scope.get("wenet.problem")
    if problem is not None:
        attributes["error.type"] = problem
        attributes.setdefault("wenet.reason", problem)
    return attributes


def _steps(start_ns: int, timing: str) -> List[Tuple[str, int, int]]:
    """Name, begin and end of each step that Server-Timing knows, ns of the epoch."""
    took_ms = {name: float(ms) for name, ms in _TIMED.findall(timing)}
    steps = []
    at_ns = start_ns + round(took_ms.get("recv", 0.0) * 1e6)
    for name in STEPS:
        if name in took_ms:
            end_ns = at_ns + round(took_ms[name] * 1e6)
            steps.append((name, at_ns, end_ns))
            at_ns = end_ns
    return steps


def open_tracing(settings: Settings) -> Optional[Tracing]:
    """What traces as the settings say; None if nothing does.

    Raises:
        SettingsError: OpenTelemetry is not installed, or one of its variables is impossible.
    """
    if not settings.otel and settings.otel_endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            f"--otel needs OpenTelemetry, of which '{error.name}' is missing: `pip install 'wenet-runtime[otel]'`"
        ) from None
    try:
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say counts more.
        named = {"service.name": NAME, "service.version": __version__, **OTELResourceDetector().detect().attributes}
        provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=traces_url(settings.otel_endpoint))))
    except ValueError as error:
        raise SettingsError(f"--otel: a variable OTEL_* is impossible: {error}") from None
    return Tracing(provider)


def traces_url(endpoint: Optional[str]) -> Optional[str]:
    """Where spans are sent at a collector; None leaves it to the variables."""
    if endpoint is None or urlsplit(endpoint).path.strip("/"):
        return endpoint
    return endpoint.rstrip("/") + "/v1/traces"
