import argparse
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from benchmarks import serving_added as added
from benchmarks import serving_overload as overload
from benchmarks import serving_refusal as refusal
from benchmarks import serving_throughput as throughput
from benchmarks.load_report import report
from benchmarks.peers import wenet
from benchmarks.peers.environments import PEERS
from benchmarks.serving import PARTS, chosen, part
from benchmarks.serving_client import Connection
from benchmarks.serving_load import Load, Sent, send
from benchmarks.serving_models import slow_and_fast, transport
from benchmarks.serving_stand import answer_of, check_numbers, photograph
from benchmarks.serving_statistics import mean_of
from wenet_runtime.client.load import Answer


def test_an_interval_is_students_and_one_repeat_has_none():
    assert mean_of([1.0, 3.0]).value == 2
    assert mean_of([1.0, 3.0]).half == pytest.approx(12.706)  # t with one degree of freedom, times a deviation of 1
    assert mean_of([1.0] * 40).half == 0
    assert math.isnan(mean_of([1.0]).half)
    with pytest.raises(ValueError, match="no repeats"):
        mean_of([])


def test_parts_are_any_of_four_once():
    assert part("ca") == "ca"
    for wrong in ("", "e", "aa", "abx"):
        with pytest.raises(argparse.ArgumentTypeError, match="a, b, c, d"):
            part(wrong)
    assert part(PARTS) == PARTS


def test_ours_is_always_among_the_chosen_and_an_unknown_peer_is_refused():
    assert chosen(None) == PEERS
    assert [peer.name for peer in chosen(["triton"])] == ["wenet", "triton"]
    with pytest.raises(SystemExit, match="choose from"):
        chosen(["tritn"])


def _turns(ours: float, asgi: float, litserve: float) -> dict[str, list[list[float]]]:
    ways = {added.SESSION: 1.0, added.RAW: ours, "asgi, raw": asgi, "litserve, base64": litserve}
    return {name: [[ms] * 5] * 3 for name, ms in ways.items()}


def test_what_is_added_leaves_the_session_out():
    assert added.added(_turns(1.5, 2.0, 5.0))[added.RAW].value == pytest.approx(0.5)
    assert added.ratio(_turns(1.5, 2.0, 5.0), "litserve, base64", added.RAW).value == pytest.approx(8)


@pytest.mark.parametrize(("ours", "met"), [(1.4, True), (1.9, False)])
def test_added_latency_is_judged_against_each_peer(ours, met):
    found = added.figures(_turns(ours, 1.4, 5.0), added.LARGE, "tensor")
    assert found[f"{added.LARGE}: wenet, raw / asgi, raw"].met is met
    assert found[f"{added.LARGE}: litserve, base64 / wenet, raw"].met is met
    assert found[f"{added.LARGE}: litserve, base64: added p50"].met is None
    small = added.figures(_turns(ours, 1.4, 5.0), "small", "tensor")
    assert small["small: litserve, base64 / wenet, raw"].met is None  # the goal is the large tensor's
    assert small["small: wenet, raw / asgi, raw"].met is met
    tail = {**_turns(1.4, 1.4, 5.0), added.RAW: [[1.4] * 4 + [9.0]] * 3}
    assert added.figures(tail, "small", "tensor")["small: wenet, raw: p99 / p50"].met is False
    assert added.figures(_turns(3.0, 1.4, 5.0), "JPEG", "jpeg")["JPEG: wenet, raw: added p50"].met is False


@pytest.mark.parametrize(("ours", "met"), [(98.0, True), (90.0, False)])
def test_throughput_is_a_share_of_the_loop_of_the_same_round(ours, met):
    rates = {throughput.LOOP: [100.0, 200.0], throughput.RAW: [ours, 2 * ours], "triton, V2 binary": [100.0, 200.0]}
    found = throughput.figures(rates)
    assert found["throughput: wenet, raw"].value == pytest.approx(ours / 100)
    assert found["throughput: wenet, raw"].met is met
    assert found["throughput: wenet, raw / triton, V2 binary"].met is met


@pytest.mark.parametrize(
    ("probe", "quick", "refused"),
    [
        (refusal.Probe(2.0, 503, retry_after=True), True, True),
        (refusal.Probe(400.0, 503, retry_after=True), False, True),
        (refusal.Probe(2.0, 200, retry_after=False), True, False),
        (refusal.Probe(2.0, 503, retry_after=False), True, False),
    ],
)
def test_a_refusal_must_be_quick_and_say_when_to_come_back(probe, quick, refused):
    found = refusal.figures({"wenet": [probe], "triton": [probe]}, {"wenet": 500, "triton": 500}, refusal.FULL, PEERS)
    assert found["refusal: wenet: p99"].met is quick
    assert found["refusal: wenet: 503 with Retry-After"].met is refused
    assert found["refusal: triton: p99"].met is None


def _overloaded(statuses: list[int], *, silent: int, most_mb: float) -> overload.Overloaded:
    answers = tuple(Answer(0.1 * number, 0.0, 10.0, status, "g16") for number, status in enumerate(statuses))
    made = report(answers, budget_ms=50, seconds=1, accuracies={"g16": 0.6})
    return overload.Overloaded(Sent(answers, silent), made, 1.0, 100.0, [100.0, most_mb])


def test_an_overload_is_judged_by_what_was_accepted_statuses_and_memory():
    asked = overload.Asked(30.0, 50.0, 0.1, 0, 0)
    good = {"wenet": _overloaded([200] * 10 + [503] * 20, silent=0, most_mb=110)}
    assert all(one.met is not False for one in overload.figures(good, asked, 10.0).values())
    bad = {"wenet": _overloaded([200] * 5 + [500] * 25, silent=3, most_mb=140)}
    judged = {name: one.met for name, one in overload.figures(bad, asked, 10.0).items() if one.met is not None}
    assert len(judged) == 5
    assert not any(judged.values())
    beside = overload.figures({"litserve": bad["wenet"]}, asked, 10.0)
    assert all(one.met is None for one in beside.values())


def test_the_budget_of_an_overload_is_three_full_runs():
    assert overload.budget_of({"g1": 20.0, "g16": 5.0}) == 60
    assert overload.budget_of({"g1": 2.0}) == overload.LEAST_BUDGET_MS


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    status, headers, body = 200, {}, b"answer"

    def handle_error(self, request, client_address):
        """A client that has given up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.status)
        for name, value in {"Content-Length": str(len(self.server.body)), **self.server.headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *words):
        """Nothing."""


@pytest.fixture
def server():
    with _Server(("127.0.0.1", 0), _Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"


def test_a_connection_asks_again_and_again_also_where_the_server_closes_it(server):
    connection = Connection(server.server_address[1])
    server.body = b"x" * 500_000  # more than a socket gives at once
    for headers in ({}, {"Connection": "close"}, {}):
        server.headers = headers
        reply = connection.ask(REQUEST)
        assert (reply.status, reply.body) == (200, server.body)
        assert reply.ms > 0
    connection.close()


def test_a_reply_of_unknown_length_is_an_error(server):
    server.headers = {"Content-Length": None}
    connection = Connection(server.server_address[1])
    with pytest.raises(RuntimeError, match="Content-Length"):
        connection.ask(REQUEST)
    connection.close()


@pytest.mark.parametrize(("headers", "silent"), [({"Retry-After": "1"}, 0), ({}, 5), ({"Retry-After": "soon"}, 5)])
def test_refusals_that_do_not_say_when_to_come_back_are_counted(server, tmp_path, headers, silent):
    server.status, server.headers = 503, headers
    (tmp_path / "request").write_bytes(REQUEST)
    load = Load(server.server_address[1], str(tmp_path / "request"), [0.01 * n for n in range(5)], connections=2)
    sent = send(load)
    assert [one.status for one in sent.answers] == [503] * 5
    assert sent.without_retry_after == silent
    with pytest.raises(RuntimeError, match="no 200"):
        sent.per_second()


def test_the_small_networks_answer_alike_in_the_bundle_and_as_a_file(tmp_path):
    subject = transport(tmp_path / "small", 2)
    served = subject.served(["only"])
    answer = answer_of(subject, served, "tensor", subject.content)
    assert answer.shape == (1, served.outputs)
    assert transport(tmp_path / "small", 2).bundle.sha256 == subject.bundle.sha256  # kept, not made again
    assert subject.bundle.manifest.model == wenet.MODEL_NAME


def test_an_image_is_taken_where_the_network_is_for_images(tmp_path):
    subject = transport(tmp_path / "large", 224)
    assert answer_of(subject, subject.served(["only"]), "jpeg", photograph()).shape == (1, 4)
    assert len(subject.content) == 602_112


def test_the_slow_network_has_a_quick_mode_that_the_first_number_chooses(tmp_path):
    subject = slow_and_fast(tmp_path / "slow", 1.0)
    served = subject.served(refusal.MODES)
    assert [path.rsplit("/", 1)[1] for path in served.models] == ["fast.onnx", "slow.onnx"]
    slow, fast = (np.frombuffer(one, np.float32)[0] for one in refusal.contents(subject))
    assert slow > 0.5 >= fast


def test_numbers_other_than_the_sessions_are_found():
    expected = np.array([1.0, -2.0], np.float32)
    check_numbers(expected + 1e-5, expected)
    for wrong in (expected * 1.1, expected[:1], expected * np.nan):
        with pytest.raises(ValueError, match="session"):
            check_numbers(wrong, expected)
