"""A body comes in one piece and a reply leaves in one write; what is not whole goes uvicorn's way."""

import asyncio
import logging
from typing import Any, Awaitable, Callable, Dict, List

import pytest
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from wenet_runtime.service.bodies import MAX_BODY_BYTES
from wenet_runtime.service.exchange import JOINED_BYTES, MOST_PIECES, Exchange


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: List[bytes] = []
        self.closed = self.reading = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def cycle_of(transport: Transport, **how: Any) -> RequestResponseCycle:
    given: Dict[str, Any] = {"expect_100_continue": False, "keep_alive": True, "default_headers": [], "method": "POST"}
    given.update(how)
    log = logging.getLogger("test")
    return RequestResponseCycle(
        scope={"type": "http", "method": given.pop("method"), "http_version": "1.1", "headers": []},  # type: ignore[typeddict-item]
        transport=transport,  # type: ignore[arg-type]
        flow=FlowControl(transport),  # type: ignore[arg-type]
        logger=log,
        access_logger=log,
        access_log=False,
        message_event=asyncio.Event(),
        on_response=lambda: None,
        **given,
    )


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))  # type: ignore[arg-type]


def start(length: int, *more: Any, status: int = 200) -> Dict[str, Any]:
    headers = [(b"content-length", b"%d" % length), *more]
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes, **more: Any) -> Dict[str, Any]:
    return {"type": "http.response.body", "body": content, **more}


def test_the_pieces_of_a_body_are_one_message() -> None:
    async def run() -> None:
        cycle = cycle_of(Transport())
        exchange = Exchange(cycle)
        exchange.add(b"one ")
        asked = asyncio.ensure_future(exchange.receive())
        await asyncio.sleep(0)
        exchange.add(b"two")
        await asyncio.sleep(0)
        assert not asked.done()
        cycle.more_body = False
        cycle.message_event.set()
        assert await asked == {"type": "http.request", "body": b"one two", "more_body": False}
        then = asyncio.ensure_future(exchange.receive())
        await asyncio.sleep(0)
        assert not then.done()  # nothing more comes but the client's leaving
        cycle.disconnected = True
        cycle.message_event.set()
        assert (await then)["type"] == "http.disconnect"

    in_loop(run)


def test_who_waits_for_a_body_learns_that_its_client_has_left() -> None:
    async def run() -> None:
        cycle = cycle_of(Transport())
        exchange = Exchange(cycle)
        asked = asyncio.ensure_future(exchange.receive())
        await asyncio.sleep(0)
        cycle.disconnected = True
        cycle.message_event.set()
        assert await asked == {"type": "http.disconnect"}

    in_loop(run)


def test_a_body_that_is_too_large_is_handed_over_before_its_end_and_read_no_further() -> None:
    async def run() -> None:
        transport = Transport()
        transport.reading = True
        cycle = cycle_of(transport)
        exchange = Exchange(cycle)
        asked = asyncio.ensure_future(exchange.receive())
        await asyncio.sleep(0)
        exchange.add(b"x" * MAX_BODY_BYTES)
        await asyncio.sleep(0)
        assert not asked.done()
        exchange.add(b"y")
        assert not transport.reading
        message = await asked
        assert len(message["body"]) == MAX_BODY_BYTES + 1
        assert message["more_body"] is True

    in_loop(run)


def test_a_client_that_asks_is_told_to_continue() -> None:
    async def run() -> None:
        transport = Transport()
        cycle = cycle_of(transport, expect_100_continue=True)
        exchange = Exchange(cycle)
        asked = asyncio.ensure_future(exchange.receive())
        await asyncio.sleep(0)
        assert transport.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
        cycle.more_body = False
        cycle.message_event.set()
        await asked

    in_loop(run)


@pytest.mark.parametrize("size", [0, 3, JOINED_BYTES, JOINED_BYTES + 1])
def test_a_whole_reply_reads_as_the_cycle_would_have_written_it(size: int) -> None:
    async def run() -> None:
        ours, its = Transport(), Transport()
        fields = ((b"wenet-mode", b"m1"), (b"x-request-id", b"one"))
        messages = [start(size, *fields, status=206), body(b"x" * size)]
        default = [(b"server", b"it")]
        cycle, other = cycle_of(ours, default_headers=default), cycle_of(its, default_headers=default)
        exchange = Exchange(cycle)
        for message in messages:
            await exchange.send(message)
            await other.send(message)  # type: ignore[arg-type]
        assert b"".join(ours.written) == b"".join(its.written)
        assert len(ours.written) == (1 if size <= JOINED_BYTES else 2)
        assert cycle.response_started
        assert cycle.response_complete
        assert cycle.message_event.is_set()
        assert not ours.closed

    in_loop(run)


@pytest.mark.parametrize("asked", [False, True])
def test_a_connection_ends_where_either_side_wants_it(asked: bool) -> None:
    async def run() -> None:
        transport = Transport()
        cycle = cycle_of(transport, keep_alive=asked)
        cycle.more_body = False
        exchange = Exchange(cycle)
        await exchange.send(start(2, *([(b"connection", b"close")] if asked else [])))
        await exchange.send(body(b"ok"))
        assert transport.closed
        assert b"".join(transport.written).count(b"connection: close\r\n") == 1

    in_loop(run)


def test_a_connection_whose_body_still_comes_is_left_to_its_protocol() -> None:
    async def run() -> None:
        transport = Transport()
        exchange = Exchange(cycle_of(transport, keep_alive=False))
        await exchange.send(start(2))
        await exchange.send(body(b"ok"))
        assert b"".join(transport.written).endswith(b"connection: close\r\n\r\nok")
        assert not transport.closed

    in_loop(run)


def test_nothing_is_written_to_a_connection_that_closes() -> None:
    async def run() -> None:
        transport = Transport()
        exchange = Exchange(cycle_of(transport))
        await exchange.send(start(2))
        transport.close()
        await exchange.send(body(b"ok"))
        assert transport.written == []

    in_loop(run)


@pytest.mark.parametrize("pieces", [1, 2, MOST_PIECES, MOST_PIECES + 1, 3 * MOST_PIECES])
def test_a_body_is_the_same_in_however_many_pieces_it_comes(pieces: int) -> None:
    async def run() -> None:
        cycle = cycle_of(Transport())
        exchange = Exchange(cycle)
        for number in range(pieces):
            exchange.add(b"%d," % number)
        assert len(exchange._pieces) <= MOST_PIECES  # each takes more than its bytes
        cycle.more_body = False
        body = (await exchange.receive())["body"]
        assert type(body) is bytes
        assert body == b"".join(b"%d," % number for number in range(pieces))

    in_loop(run)


def test_a_body_that_waits_behind_another_request_is_not_stocked() -> None:
    async def run() -> None:
        transport = Transport()
        cycle = cycle_of(transport)
        exchange = Exchange(cycle, behind=True)
        cycle.flow.resume_reading()
        exchange.add(b"x" * HIGH_WATER_LIMIT)
        assert not cycle.flow.read_paused
        exchange.add(b"x")
        assert cycle.flow.read_paused
        asked = asyncio.ensure_future(exchange.receive())
        await asyncio.sleep(0)
        assert not cycle.flow.read_paused
        exchange.add(b"x")
        assert not cycle.flow.read_paused  # somebody waits for it
        cycle.more_body = False
        cycle.message_event.set()
        assert len((await asked)["body"]) == HIGH_WATER_LIMIT + 2

    in_loop(run)


def test_a_body_that_nobody_asked_for_goes_with_the_reply() -> None:
    async def run() -> None:
        exchange = Exchange(cycle_of(Transport()))
        exchange.add(b"x" * 1000)
        await exchange.send(start(2))
        await exchange.send(body(b"no"))
        assert exchange._pieces == []

    in_loop(run)


def test_a_reply_waits_while_its_client_reads_nothing() -> None:
    async def run() -> None:
        transport = Transport()
        cycle = cycle_of(transport)
        cycle.flow.pause_writing()
        exchange = Exchange(cycle)
        await exchange.send(start(2))
        sent = asyncio.ensure_future(exchange.send(body(b"ok")))
        await asyncio.sleep(0)
        assert transport.written == []
        cycle.flow.resume_writing()
        await sent
        assert b"".join(transport.written).endswith(b"\r\n\r\nok")

    in_loop(run)


def test_what_is_not_whole_goes_the_cycles_way() -> None:
    async def run() -> None:
        transport = Transport()
        exchange = Exchange(cycle_of(transport))
        await exchange.send({"type": "http.response.start", "status": 200, "headers": []})
        await exchange.send(body(b"one", more_body=True))
        await exchange.send(body(b"two"))
        assert b"".join(transport.written).endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")

    in_loop(run)


def test_a_head_request_gets_no_body() -> None:
    async def run() -> None:
        transport = Transport()
        exchange = Exchange(cycle_of(transport, method="HEAD"))
        await exchange.send(start(2))
        await exchange.send(body(b"ok"))
        assert b"".join(transport.written).endswith(b"content-length: 2\r\n\r\n")

    in_loop(run)


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
def test_a_header_cannot_end_before_its_end(value: bytes) -> None:
    async def run() -> None:
        transport = Transport()
        exchange = Exchange(cycle_of(transport))
        await exchange.send(start(2, (b"x", value)))
        with pytest.raises(RuntimeError, match="more than one line"):
            await exchange.send(body(b"ok"))
        assert transport.written == []

    in_loop(run)


def test_nothing_is_written_to_a_client_that_has_left() -> None:
    async def run() -> None:
        transport = Transport()
        cycle = cycle_of(transport)
        exchange = Exchange(cycle)
        await exchange.send(start(2))
        cycle.disconnected = True
        await exchange.send(body(b"ok"))
        assert transport.written == []

    in_loop(run)
