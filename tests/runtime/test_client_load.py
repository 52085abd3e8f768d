"""A load: when requests are due, what the sender sees, and how it is summed up."""

import gc
import socket
import threading
import time
from collections import Counter
from typing import Any, Iterator, List

import pytest

from tests.runtime.fakes import PATIENCE_S
from tests.runtime.http_doubles import Asked, Scripted, ScriptedServer, problem
from wenet_runtime.client.load import NO_ANSWER, Answer, arrivals, even_arrivals
from wenet_runtime.client.load_report import lines, percentiles, summary
from wenet_runtime.client.sender import Sender, request_bytes

HEADERS = {"WeNet-Mode": "m1", "WeNet-Latency-Ms": "1.5", "WeNet-Energy-Mj": "12.5", "WeNet-Energy-Source": "sim"}


def good(asked: Asked) -> Scripted:
    return 200, HEADERS, b"answer"


@pytest.fixture
def serve() -> Iterator[Any]:
    started: List[ScriptedServer] = []

    def start(answer: Any = good) -> ScriptedServer:
        started.append(ScriptedServer(answer))
        return started[-1]

    yield start
    for one in started:
        one.close()


def run(port: int, requests: List[bytes], arrivals_s: List[float], **how: Any) -> Any:
    sender = Sender("127.0.0.1", port, requests=requests, arrivals_s=arrivals_s, connections=2, **how)
    return sender.run(time.monotonic())


def test_even_arrivals_come_at_even_distances() -> None:
    assert even_arrivals(4, 1.0) == [0.0, 0.25, 0.5, 0.75]
    assert even_arrivals(0.5, 1.0) == [0.0]
    assert len(even_arrivals(10, 0.3)) == 3


def test_arrivals_by_chance_have_the_rate() -> None:
    times = arrivals(100, 50, seed=3)
    assert len(times) == pytest.approx(5000, rel=0.05)
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] < 50


def test_requests_are_sent_in_turn_and_their_answers_know_which_they_were(serve: Any) -> None:
    server = serve()
    requests = [request_bytes(f"/{name}", {"Host": "h"}, name.encode()) for name in "ab"]
    found = run(server.server_address[1], requests, [0.0, 0.3, 0.6])
    assert [one.kind for one in found.answers] == [0, 1, 0]
    assert sorted((one.path, one.body) for one in server.asked) == [("/a", b"a"), ("/a", b"a"), ("/b", b"b")]
    first = found.answers[0]
    assert (first.mode, first.served_ms, first.energy_mj, first.energy_source) == ("m1", 1.5, 12.5, "sim")


def test_the_collector_is_as_it_was_and_all_connections_are_closed(serve: Any) -> None:
    server = serve()
    request = request_bytes("/", {}, b"")
    assert gc.isenabled()
    run(server.server_address[1], [request], [0.0])
    assert gc.isenabled()
    gc.disable()
    try:
        run(server.server_address[1], [request], [0.0])
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("bytes_", [b"220 mail\r\n\r\n", b"HTTP\r\n\r\n", b"HTTP/1.1 ok\r\n\r\n"])
def test_a_peer_that_does_not_speak_http_gives_no_answer(bytes_: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def speak() -> None:
            peers = [odd.accept()[0] for _ in range(2)]
            for peer in peers:
                peer.settimeout(PATIENCE_S)
            peers[0].recv(4096)
            peers[0].sendall(bytes_)
            peers[0].recv(4096)
            for peer in peers:
                peer.close()

        speaker = threading.Thread(target=speak)
        speaker.start()
        found = run(odd.getsockname()[1], [request_bytes("/", {}, b"")], [0.0])
        speaker.join(PATIENCE_S)
    assert [one.status for one in found.answers] == [NO_ANSWER]


def test_a_server_that_is_gone_gives_no_answers_and_no_error(serve: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        sender = Sender(
            "127.0.0.1",
            gone.getsockname()[1],
            requests=[request_bytes("/", {}, b"")],
            arrivals_s=[0.0, 0.01, 0.02],
            connections=1,
            patience_s=0.2,
        )
    found = sender.run(time.monotonic())
    assert [one.status for one in found.answers] == [NO_ANSWER] * 3


def test_an_error_without_json_has_no_slug(serve: Any) -> None:
    replies = [(500, {}, b"oops"), (500, {}, b"[]"), problem("queue-full", 503)]
    server = serve(lambda asked: replies[len(server.asked) - 1])
    found = run(server.server_address[1], [request_bytes("/", {}, b"")], [0.0, 0.3, 0.6])
    # Who asks first is not always answered first.
    assert Counter(one.problem for one in found.answers) == {None: 2, "queue-full": 1}


ANSWERS = (
    Answer(0.1, 0.1, 10.0, 200, "a", "fits", 8.0, 9.0, energy_mj=100.0, energy_source="sim", kind=0),
    Answer(0.2, 3.0, 30.0, 200, "a", "fits", 8.0, 28.0, kind=0),
    Answer(0.9, 0.1, 30.0, 200, "b", "fits", 30.0, 29.0, energy_mj=50.0, energy_source="sim", kind=1),
    Answer(1.6, 0.1, 2.0, 503, problem="deadline-infeasible", kind=0),
    Answer(1.7, 0.1, 9.0, NO_ANSWER, kind=1),
    Answer(1.8, 0.1, 500.0, 200, "c", kind=2),
)
FOUND = summary(ANSWERS, budgets_ms=[20.0, 50.0, None], seconds=2, accuracies={"a": 0.8, "b": 0.6})


def test_a_refusal_a_late_answer_and_none_at_all_miss_their_budget() -> None:
    assert FOUND["within_budget"] == pytest.approx(2 / 5)  # the request without a budget counts neither way
    assert [(one["budget_ms"], one["within_budget"]) for one in FOUND["by_budget"]] == [
        (20.0, pytest.approx(1 / 3, abs=1e-6)),
        (50.0, 0.5),
    ]
    assert FOUND["by_budget"][0]["modes"] == {"a": 2}


def test_a_summary_counts_what_there_was() -> None:
    assert (FOUND["arrivals"], FOUND["answered"], FOUND["answered_per_s"]) == (6, 4, 2.0)
    assert FOUND["statuses"] == {"200": 4, "503": 1, "no answer": 1}
    assert FOUND["problems"] == {"deadline-infeasible": 1}
    assert FOUND["modes"] == {"a": 2, "b": 1, "c": 1}
    assert FOUND["expected_accuracy"] == pytest.approx((0.8 + 0.8 + 0.6) / 3, abs=1e-6)  # c's is unknown
    assert (FOUND["energy_mj"], FOUND["energy_sources"]) == (75.0, ["sim"])
    assert FOUND["latency_ms"] == {"p50": 30.0, "p95": pytest.approx(429.5), "p99": pytest.approx(485.9), "max": 500.0}
    assert FOUND["sent_late_ms"]["max"] == 3.0


def test_a_summary_of_nothing_says_unknown_and_not_nought() -> None:
    found = summary([], budgets_ms=[20.0], seconds=2, accuracies={})
    assert found["latency_ms"] is found["within_budget"] is found["expected_accuracy"] is found["energy_mj"] is None
    assert "energy: unknown" in lines(found)
    assert percentiles([]) is None


def test_a_summary_is_told_in_lines() -> None:
    told = "\n".join(lines(FOUND))
    assert "6 requests, 4 answered (2 a second)" in told
    assert "p50 30, p95 429.5, p99 485.9, max 500 ms" in told
    assert "within budget: 40.00% of all that had one" in told
    assert "  20 ms: 33.33% of 3" in told
    assert "modes: a 2 (50.0%), b 1 (25.0%), c 1 (25.0%)" in told
    assert "accuracy expected of these modes: 73.33%" in told
    assert "energy: 75 mJ an image by sim" in told
