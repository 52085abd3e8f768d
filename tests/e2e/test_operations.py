"""What a daemon tells those who run it: its log, its metrics and its traces, of the same few requests."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.runtime.fakes import ones, v2_body
from tests.runtime.http_doubles import ScriptedServer
from tests.supernets import write_test_bundle

START_S = 60.0
TOKEN, WRONG = "sesame-" * 4, "wrong-sesame-" * 3
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Told:
    """Everything that was told of one daemon's life."""

    def __init__(self, place: Path) -> None:
        write_test_bundle(place / "bundle")
        (place / "token").write_text(TOKEN)
        (place / "token").chmod(0o600)
        self.collector = ScriptedServer(lambda asked: (200, {"Content-Type": "application/x-protobuf"}, b""))
        words = ["--engine", "sim", "--port", "0", "--token-file", "token", "--access-log-every", "3"]
        words += ["--cache-dir", "cache", "--profile-rounds", "10", "--otel-endpoint", self.collector.url]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("WENET_", "OTEL_"))}
        command = [sys.executable, "-W", "error", "-c", "from wenet_runtime.cli import main; main()", *words]
        with (place / "log").open("wb") as file:
            process = subprocess.Popen(command, stderr=file, cwd=place, env=environment)
        try:
            self.metrics = self._use(self._url(process, place / "log"))
            process.send_signal(signal.SIGTERM)
            assert process.wait(START_S) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self.collector.close()
        self.text = (place / "log").read_text()
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in self.text.splitlines()]

    def _url(self, process: "subprocess.Popen[bytes]", log: Path) -> str:
        end = time.monotonic() + START_S
        while time.monotonic() < end and process.poll() is None:
            found = re.search(r"serving tiny on (http://\S+) ", log.read_text())
            if found:
                return found.group(1)
            time.sleep(0.05)
        raise AssertionError(log.read_text())

    def _use(self, url: str) -> str:
        """Three answers, four refusals."""
        right = {"Authorization": f"Bearer {TOKEN}"}
        body = v2_body(ones())
        with httpx.Client(base_url=url) as client:
            parent = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            client.post("/infer", json=body, headers={**right, **parent}).raise_for_status()
            client.post("/infer", json=body, headers=right).raise_for_status()
            answered = client.post(
                f"/v2/models/tiny/infer?token={WRONG}",
                json=body,
                headers={**right, "WeNet-Budget-Ms": "5000", "X-Request-Id": "r-3"},
            )
            assert answered.status_code == 200
            assert client.post("/infer", json=body, headers={"Authorization": f"Bearer {WRONG}"}).status_code == 401
            impossible = {**right, "WeNet-Budget-Ms": "0.001"}
            assert client.post("/infer", json=body, headers=impossible).status_code == 422
            assert client.get(f"/{WRONG}", headers=right).status_code == 404
            with socket.create_connection((client.base_url.host, client.base_url.port or 0), START_S) as raw:
                raw.sendall(f"{WRONG}\r\n\r\n".encode())
                assert raw.recv(65536).startswith(b"HTTP/1.1 400")
            return client.get("/metrics", headers=right).text


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return Told(tmp_path_factory.mktemp("operations"))


def test_every_line_of_the_log_is_json_from_the_announcement_to_the_end(told: Told) -> None:
    assert all({"time", "level", "logger", "message"} <= set(line) for line in told.lines)
    messages = [line["message"] for line in told.lines]
    assert any(one.startswith("serving tiny on http://") for one in messages)
    assert messages[-1] == "drained"


def test_one_of_three_answers_has_a_line_and_every_refusal_its_own(told: Told) -> None:
    lines = [line for line in told.lines if line["logger"] == "wenet_runtime.access"]
    found = [tuple(line.get(name) for name in ("method", "path", "status", "reason")) for line in lines]
    assert found == [
        ("POST", "/v2/models/{model}/infer", 200, "fits"),
        ("POST", "/infer", 401, "unauthorized"),
        ("POST", "/infer", 422, "budget-impossible"),
        ("GET", "other", 404, "not-found"),
        (None, None, 400, "malformed-request"),
    ]
    assert (lines[0]["mode"], lines[0]["budget_ms"], lines[0]["request_id"]) == ("m2", 5000.0, "r-3")
    assert lines[0]["latency_ms"] > 0
    assert lines[2]["budget_ms"] == 0.001


def test_no_token_stands_in_the_log(told: Told) -> None:
    assert "sesame" not in told.text


def test_a_request_without_a_token_is_counted_as_its_client_s_error(told: Told) -> None:
    # So is the one that could not be read. What asks for no inference is not counted.
    counted = dict(re.findall(r'wenet_requests_total\{outcome="(\w+)"\} ([0-9.]+)', told.metrics))
    assert (counted["ok"], counted["client_error"], counted["rejected_deadline"]) == ("3.0", "2.0", "1.0")


def test_the_traces_reach_their_collector_and_go_on_from_the_caller(told: Told) -> None:
    trace_service = pytest.importorskip(
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="OpenTelemetry is not installed here"
    )
    assert {asked.path for asked in told.collector.asked} == {"/v1/traces"}
    spans = [
        span
        for asked in told.collector.asked
        for resource in trace_service.ExportTraceServiceRequest.FromString(asked.body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    ours = {span.name: span for span in spans if span.trace_id.hex() == TRACE}
    assert set(ours) == {"POST /infer", "decode", "queue", "infer"}
    assert ours["POST /infer"].parent_span_id.hex() == CALLER
    assert {ours[name].parent_span_id for name in ("decode", "queue", "infer")} == {ours["POST /infer"].span_id}
    assert sum(span.name == "POST /infer" for span in spans) == 4
    assert all("sesame" not in str(span) for span in spans)
