import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from benchmarks.load_report import by_second, only_allowed, report
from benchmarks.open_loop import NO_ANSWER, Answer, Generator, Load, arrivals
from benchmarks.sender import sender_of

PATIENCE_S = 60.0  # no crowded machine needs it
BODY = bytes(range(256)) * 1200  # more than a socket takes at once


class _Server(ThreadingHTTPServer):
    """Answers each request with what `answer` says about its number, after that many seconds."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.lock = threading.Lock()
        self.seen = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that has given up is no news."""

    @property
    def port(self):
        return self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            number = len(self.server.seen)
            self.server.seen.append((dict(self.headers), body))
        delay_s, status, headers, content = self.server.answer(number)
        time.sleep(delay_s)
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(tmp_path: Path):
    servers = []

    def start(answer):
        servers.append(_Server(answer))
        (tmp_path / "body").write_bytes(BODY)
        return servers[-1], str(tmp_path / "body")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _good(number, delay_s=0.0):
    headers = {
        "WeNet-Mode": "m1",
        "WeNet-Mode-Reason": "fits",
        "WeNet-Predicted-Ms": "2.5",
        "WeNet-Latency-Ms": "1.25",
        "WeNet-Budget-Met": "true",
    }
    return delay_s, 200, headers, b"x" * 5000


def _run(load, start_s=None):
    return sender_of(load).run(time.monotonic() if start_s is None else start_s)


@pytest.mark.parametrize("cv2", [1.0, 4.0])
def test_arrivals_have_the_rate_and_the_burstiness_that_was_asked_for(cv2):
    times = np.array(arrivals(50, 2000, cv2=cv2, seed=1))
    gaps = np.diff(times)
    assert times[0] >= 0
    assert times[-1] < 2000
    assert (gaps >= 0).all()
    assert len(times) == pytest.approx(50 * 2000, rel=0.03)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(cv2, rel=0.1)


def test_arrivals_follow_from_the_seed_alone():
    assert arrivals(50, 3, seed=7) == arrivals(50, 3, seed=7)
    assert arrivals(50, 3, seed=7) != arrivals(50, 3, seed=8)


@pytest.mark.parametrize(("rate", "seconds", "cv2"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (float("nan"), 1, 1)])
def test_arrivals_that_cannot_be_are_refused(rate, seconds, cv2):
    with pytest.raises(ValueError, match="above 0"):
        arrivals(rate, seconds, cv2=cv2)


def test_a_request_is_a_raw_tensor_with_the_headers_that_were_given(serve):
    server, body = serve(_good)
    run = _run(Load(server.port, body, [0.0, 0.01], {"WeNet-Budget-Ms": "50"}, connections=2))
    assert [content for _, content in server.seen] == [BODY, BODY]
    headers = server.seen[0][0]
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Inference-Header-Content-Length"] == "0"
    assert headers["WeNet-Budget-Ms"] == "50"
    one = run.answers[0]
    assert (one.status, one.mode, one.reason, one.predicted_ms, one.served_ms) == (200, "m1", "fits", 2.5, 1.25)
    assert one.met is True
    assert one.latency_ms >= one.late_ms >= 0


def test_requests_leave_on_time_although_no_answer_has_come(serve):
    held = threading.Event()

    def answer(number):
        held.wait(2 * PATIENCE_S)
        return _good(number)

    server, body = serve(answer)
    load = Load(server.port, body, [0.01 * number for number in range(20)], connections=3, patience_s=2 * PATIENCE_S)
    found = []
    sender = threading.Thread(target=lambda: found.append(_run(load)))
    sender.start()
    end_s = time.monotonic() + PATIENCE_S
    while len(server.seen) < 20 and time.monotonic() < end_s:
        time.sleep(0.01)
    sent = len(server.seen)
    held.set()
    sender.join(2 * PATIENCE_S)
    assert sent == 20  # all of them, while not one was answered
    assert [one.status for one in found[0].answers] == [200] * 20
    assert found[0].opened == 17


def test_a_latency_counts_from_when_the_request_was_due_not_from_when_it_was_sent(serve):
    server, body = serve(_good)
    run = _run(Load(server.port, body, [0.0, 0.05], connections=1), start_s=time.monotonic() - 0.3)
    first, second = run.answers
    assert first.latency_ms > first.late_ms > 299
    assert second.latency_ms > second.late_ms > 249


def test_refusals_and_broken_connections_are_answers_too(serve):
    def answer(number):
        if number == 0:
            return 0.0, 503, {"WeNet-Predicted-Ms": "80"}, b'{"type": "urn:wenet:problem:deadline-infeasible"}'
        return (0.0, 0, {}, b"") if number == 1 else _good(number)

    server, body = serve(answer)
    run = _run(Load(server.port, body, [0.0, 0.1, 0.2, 0.3], connections=1))
    by_status = sorted(run.answers, key=lambda one: one.status)  # on a busy machine two may overtake each other
    assert [one.status for one in by_status] == [NO_ANSWER, 200, 200, 503]
    assert by_status[3].problem == "deadline-infeasible"
    assert by_status[3].predicted_ms == 80


def test_what_is_never_answered_ends_with_the_patience(serve):
    held = threading.Event()
    server, body = serve(lambda number: (held.wait(5), _good(number))[1])
    run = _run(Load(server.port, body, [0.0], connections=1, patience_s=0.2))
    held.set()
    assert [one.status for one in run.answers] == [NO_ANSWER]
    assert run.answers[0].latency_ms > 199


def test_a_closed_loop_sends_when_a_connection_is_free_and_no_more(serve):
    running, most = [0], [0]

    def answer(number):
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.01)
        running[0] -= 1
        return _good(number)

    server, body = serve(answer)
    run = _run(Load(server.port, body, [], connections=2, closed_s=2.0))
    assert most[0] <= 2
    assert len(run.answers) == len(server.seen) > 2
    assert run.opened == 0
    assert {one.status for one in run.answers} == {200}


def test_the_process_of_a_generator_brings_back_the_same_answers(serve):
    server, body = serve(_good)
    generator = Generator(Load(server.port, body, [0.0, 0.02], {"WeNet-Budget-Ms": "50"}, connections=2))
    start_s = time.monotonic() + 0.05
    generator.begin(start_s)
    run = generator.result(20)
    assert run.start_s == start_s
    assert [one.at_s for one in run.answers] == [0.0, 0.02]
    assert [one.mode for one in run.answers] == ["m1", "m1"]


def test_a_generator_that_reaches_nobody_says_so(tmp_path):
    (tmp_path / "body").write_bytes(b"x")
    with pytest.raises(RuntimeError, match="could not connect"):
        Generator(Load(1, str(tmp_path / "body"), [0.0]))


ANSWERS = (
    Answer(0.1, 0.1, 10, 200, "a", "fits", 8, 9, True),
    Answer(0.2, 3.0, 51, 200, "a", "fits", 8, 48, True),  # late only because it was sent late
    Answer(0.9, 0.1, 70, 200, "b", "degraded", 40, 69, False),
    Answer(1.5, 0.1, 20, 200, "b", "degraded", 40, 19, True),
    Answer(1.6, 0.1, 2, 503, problem="deadline-infeasible"),
)


def test_a_report_counts_refusals_as_misses_of_attainment_but_not_of_what_was_accepted():
    found = report(ANSWERS, budget_ms=50, seconds=2, accuracies={"a": 0.8, "b": 0.6})
    assert found.attainment == pytest.approx(2 / 5)
    assert found.accepted_within == pytest.approx(2 / 4)
    assert found.goodput == pytest.approx(1)
    assert found.accuracy == pytest.approx(0.7)
    assert found.statuses == {"200": 4, "503": 1}
    assert found.modes == {"a": 2, "b": 2}
    assert found.reasons == {"deadline-infeasible": 1, "degraded": 2, "fits": 2}


def test_what_was_accepted_and_then_expired_is_a_miss_of_what_was_accepted():
    expired = Answer(1.7, 0.1, 50, 504, problem="deadline-exceeded")
    found = report([*ANSWERS, expired], budget_ms=50, seconds=2, accuracies={"a": 0.8, "b": 0.6})
    assert found.accepted_within == pytest.approx(2 / 5)


def test_what_the_generator_itself_did_is_told_apart():
    found = report(ANSWERS, budget_ms=50, seconds=2, accuracies={"a": 0.8, "b": 0.6})
    assert found.missed_by_generator == 1
    assert found.late_share == pytest.approx(1 / 5)
    assert found.late_ms[2] == 3.0
    assert found.outside_ms[2] == pytest.approx(0.9)


def test_a_report_of_nothing_is_no_error():
    found = report([], budget_ms=50, seconds=2, accuracies={})
    assert (found.arrivals, found.attainment, found.goodput) == (0, 0, 0)


def test_seconds_are_told_one_by_one():
    rows = by_second(ANSWERS, budget_ms=50)
    assert [row[:4] for row in rows] == [[0, 3, 3, 1], [1, 2, 1, 1]]


def test_only_200_503_and_504_are_allowed():
    assert only_allowed(ANSWERS)
    assert not only_allowed([*ANSWERS, Answer(2.0, 0, 1, 500)])
    assert not only_allowed([*ANSWERS, Answer(2.0, 0, 1, NO_ANSWER)])
