"""Sends damaged requests over raw sockets, many at a time."""

import asyncio
import contextlib
import re
import socket
import struct
import time

from tests.fuzz.daemon import Daemon, Outcome
from tests.fuzz.requests import Case, case

AT_ONCE = 24
ANSWER_S = 2.0  # what is answered later is seen in the daemon's log alone
QUIET_S = 0.03  # an answer to what may have none is waited for so long
PAUSE_S = 0.002
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_RESET = struct.pack("ii", 1, 0)


async def _reply(one: Case, port: int, *, reset: bool) -> bytes:
    """What comes back for a case."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""
    try:
        with contextlib.suppress(ConnectionError):
            for piece in one.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(PAUSE_S if len(one.pieces) > 1 else 0)
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            while True:
                patience_s = ANSWER_S if one.whole and not found else QUIET_S
                more = await asyncio.wait_for(reader.read(1 << 16), patience_s)
                if not more:
                    break
                found += more
    finally:
        if reset:
            with contextlib.suppress(OSError):  # it is closed already
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return found


async def _run(daemon: Daemon, outcome: Outcome, seed: int, numbers: range) -> None:
    waiting = iter(numbers)

    async def client() -> None:
        for number in waiting:
            one = case(seed, number)
            outcome.cases += 1
            outcome.kinds[one.kind] += 1
            try:
                found = await _reply(one, daemon.port, reset=number % 5 == 0)
            except OSError as error:
                outcome.failed(f"case {number} ({one.kind}): no connection: {error}")
                return
            for status in _STATUS.findall(found):
                outcome.answered(int(status), f"case {number} ({one.kind})")

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))


def fuzz(daemon: Daemon, count: int, seed: int = 0) -> Outcome:
    """Try `count` cases; the daemon is checked before and after."""
    outcome = Outcome()
    start_s = time.monotonic()
    first = max(1, count // 10)
    daemon.check(outcome)
    asyncio.run(_run(daemon, outcome, seed, range(first)))
    daemon.check(outcome)
    if daemon.process.poll() is None:
        before_mb = daemon.rss_mb
        asyncio.run(_run(daemon, outcome, seed, range(first, count)))
        daemon.check(outcome)
        if daemon.process.poll() is None:
            outcome.grown_mb = daemon.rss_mb - before_mb
    outcome.took_s = time.monotonic() - start_s
    return outcome
