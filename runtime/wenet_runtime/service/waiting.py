"""A request on the event loop while the engine's thread answers it: until there is an answer, or no use for one."""

import asyncio
import concurrent.futures
import math
import time
from typing import Any, Dict, Optional

from starlette.requests import Request

from wenet_runtime.budget import Deadline, RequestOptions
from wenet_runtime.errors import DeadlineExceeded
from wenet_runtime.result import Result
from wenet_runtime.runtime import Runtime

# Most answers come sooner than this; only a request that waits longer is watched for its client leaving.
WATCH_AFTER_S = 0.02


class ClientGone(Exception):
    """The client closed the connection while its request waited."""


async def answer_of(
    runtime: Runtime, request: Request, inputs: Dict[str, Any], options: RequestOptions, start_s: float
) -> Result:
    """Submit and wait: to the result, the deadline, or the client's leaving.

    Args:
        runtime: answers.
        request: whose client may leave.
        inputs: see `Runtime.submit`.
        options: what it asks for.
        start_s: monotonic time of its first byte.

    Raises:
        ClientGone: it left before its request ran.
        DeadlineExceeded: the budget ended before that.
        Exception: what `Runtime.submit` and its future raise.
    """
    client = request.scope.get("client")
    work = runtime.submit(inputs, options, start_s, client[0] if client else "")
    limit_ms = options.protocol_ms if options.on_miss == "late" else options.effective_ms
    deadline = Deadline(start_s, limit_ms)
    waiting = Waiting(work)
    await waiting.until(work, min(deadline.at_s, time.monotonic() + WATCH_AFTER_S))
    gone = not work.done() and await _client_left(request, work, waiting, deadline)
    if not work.done():
        # Expired or left alone: what still waits is taken out and never runs, what runs is waited for.
        if work.cancel():
            if gone:
                raise ClientGone
            raise DeadlineExceeded(
                f"the budget of {deadline.limit_ms:g} ms ended while the request waited",
                executed=False,
                budget_ms=deadline.limit_ms,
            )
        while not work.done():  # whatever else wakes
            await waiting.until(work, math.inf)
    return work.result()


class Waiting:
    """Waits on the event loop for what another thread does; one hand-over, and a timer only where one is needed.

    The work holds it, so it does not hold the work: together they would wait for the collector.
    """

    def __init__(self, work: "concurrent.futures.Future[Result]") -> None:
        self._loop = asyncio.get_running_loop()
        self._woken: Optional[asyncio.Future[None]] = None
        work.add_done_callback(self._hand_over)

    def _hand_over(self, work: "concurrent.futures.Future[Result]") -> None:
        try:  # noqa: SIM105 - as quick as it gets
            self._loop.call_soon_threadsafe(self.wake)
        except RuntimeError:  # the loop has ended: nobody waits any more
            pass

    def wake(self) -> None:
        """End the present wait; on the event loop."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def until(self, work: "concurrent.futures.Future[Result]", at_s: float) -> None:
        """Wait until the work is done, `wake` is called, or it is that late (monotonic, s)."""
        if work.done():
            return
        self._woken = self._loop.create_future()
        # What is done after that look wakes this future: the event loop is not left in between.
        timer = None
        if at_s < math.inf:
            timer = self._loop.call_later(max(0.0, at_s - time.monotonic()), self.wake)
        try:
            await self._woken
        finally:
            if timer is not None:
                timer.cancel()


async def _client_left(
    request: Request, work: "concurrent.futures.Future[Result]", waiting: Waiting, deadline: Deadline
) -> bool:
    """Wait for the answer, the deadline or a disconnect, whichever comes first; True for a disconnect."""
    gone = asyncio.ensure_future(_disconnected(request))
    gone.add_done_callback(lambda task: waiting.wake())
    try:
        await waiting.until(work, deadline.at_s)
        return gone.done()
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
