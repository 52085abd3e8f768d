"""Log lines: text for a person, JSON for machines, and nobody waits for whoever reads them."""

import json
import logging
import os
import sys
import threading
import time
from typing import Any, Iterator, List

import pytest

from tests.runtime.fakes import PATIENCE_S
from wenet_runtime.service import logs
from wenet_runtime.service.logs import Aside, JsonLines, TextLines, is_json, log_handler


def record(text: str = "mode '%s' fails", *values: Any, level: int = logging.WARNING, **more: Any) -> logging.LogRecord:
    one = logging.LogRecord("wenet_runtime.pool", level, __file__, 1, text, values or ("m1",), None)
    one.created = 1_764_547_923.4567
    for name, value in more.items():
        setattr(one, name, value)
    return one


def test_a_line_of_json_says_when_how_bad_who_and_what() -> None:
    line = JsonLines().format(record(fields={"status": 503, "budget_ms": 20.0}))
    assert line == (
        '{"time":"2025-12-01T00:12:03.456Z","level":"warning","logger":"wenet_runtime.pool",'
        '"message":"mode \'m1\' fails","status":503,"budget_ms":20.0}'
    )


def test_whatever_is_logged_stays_one_line_of_json() -> None:
    try:
        raise OSError("no\nbus")
    except OSError:
        told = record("a\nb %s", "\u2028\udcff", exc_info=sys.exc_info(), fields={"what": {1}})
    line = JsonLines().format(told)
    assert line.isascii()
    assert "\n" not in line
    members = json.loads(line)
    assert members["message"] == "a\nb \u2028\udcff"
    assert members["exception"].endswith("OSError: no\nbus")


def test_a_line_of_text_ends_with_the_fields() -> None:
    assert TextLines().format(record()) == "WARNING wenet_runtime.pool: mode 'm1' fails"
    told = record("GET /x", level=logging.INFO, args=(), fields={"status": 200, "latency_ms": 3.5, "request_id": "a-b"})
    assert TextLines().format(told) == "INFO wenet_runtime.pool: GET /x status=200 latency_ms=3.5 request_id=a-b"


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    master, terminal = os.openpty()
    reading, pipe = os.pipe()
    try:
        found = [is_json(form, descriptor) for form in ("auto", "text", "json") for descriptor in (terminal, pipe)]
        assert found == [False, True, False, False, True, True]
    finally:
        for one in (master, terminal, reading, pipe):
            os.close(one)


@pytest.fixture
def pipe() -> Iterator[List[int]]:
    ends = list(os.pipe())
    yield ends
    for one in ends:
        os.close(one)


@pytest.mark.parametrize(("form", "begins"), [("json", '{"time":'), ("auto", '{"time":'), ("text", "WARNING wenet")])
def test_lines_arrive_in_order_once_they_are_flushed(pipe: List[int], form: str, begins: str) -> None:
    handler = log_handler(form, pipe[1])
    for number in range(3):
        handler.handle(record("line %d", number))
    handler.flush()
    lines = os.read(pipe[0], 65536).decode().splitlines()
    assert [one.startswith(begins) for one in lines] == [True] * 3
    assert ["line 0" in lines[0], "line 1" in lines[1], "line 2" in lines[2]] == [True] * 3


def test_a_line_is_written_whole_though_the_pipe_takes_it_in_pieces() -> None:
    written: List[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        written.append(data[:7])
        return len(written[-1])

    handler = Aside(-1, write=write)
    handler.handle(record("x" * 50 + "\udcff %s", "y"))
    handler.flush()
    assert b"".join(written).decode() == "x" * 50 + "\\udcff y\n"


class Pipe:
    """What nobody reads from until it is told."""

    def __init__(self) -> None:
        self.reached, self.gate = threading.Event(), threading.Event()
        self.lines: List[str] = []

    def __call__(self, descriptor: int, data: bytes) -> int:
        self.reached.set()
        assert self.gate.wait(PATIENCE_S)
        self.lines.append(data.decode())
        return len(data)


def test_where_nobody_reads_lines_are_dropped_and_counted_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FLUSH_S", 0.01)
    pipe = Pipe()
    handler = Aside(-1, limit=2, write=pipe)
    handler.handle(record("first %d", 1))
    assert pipe.reached.wait(PATIENCE_S)
    for number in range(5):
        handler.handle(record("more %d", number))  # two have room
    handler.flush()  # gives up
    pipe.gate.set()
    end = time.monotonic() + PATIENCE_S
    while len(pipe.lines) < 4:
        assert time.monotonic() < end, pipe.lines
        time.sleep(0.001)
    assert [one.strip() for one in pipe.lines] == [
        "first 1",
        "3 log lines were dropped: they are read too slowly",
        "more 0",
        "more 1",
    ]


def test_a_reader_that_has_gone_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    handler = log_handler("text", writing)
    handler.handle(record())
    handler.handle(record())
    handler.flush()  # both were tried
    os.close(writing)
    assert handler._waiting.empty()


def test_what_cannot_be_formatted_costs_its_line_alone(pipe: List[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = log_handler("text", pipe[1])
    handler.handle(record("%d", "no number"))
    handler.handle(record("%d", 5))
    handler.flush()
    assert os.read(pipe[0], 65536) == b"WARNING wenet_runtime.pool: 5\n"
