"""The end of a bundle that is served no more: its last requests, then its engines, then what it has mapped."""

import asyncio
import gc
import logging
import time

from starlette.concurrency import run_in_threadpool

from wenet_runtime.memory import give_back
from wenet_runtime.service.serving import Serving

POLL_S = 0.01
CLOSE_S = 30.0

_LOG = logging.getLogger(__name__)


async def left(serving: Serving, limit_s: float) -> bool:
    """Wait until no request has this bundle any more; False if that takes longer."""
    end_s = time.monotonic() + limit_s
    while serving.tally.open and time.monotonic() < end_s:
        await asyncio.sleep(POLL_S)
    return not serving.tally.open


async def close(serving: Serving) -> None:
    """Free its engines, off the event loop."""
    await run_in_threadpool(close_here, serving)


async def tidy() -> None:
    """Let go of what closed bundles have mapped, once nobody names them any more; off the event loop."""
    await run_in_threadpool(_tidy)


def close_here(serving: Serving) -> None:
    """Free its engines, on this thread."""
    if not serving.close(CLOSE_S):
        _LOG.error("the engine of bundle %s… does not end: its memory is lost", serving.bundle.sha256[:12])


def _tidy() -> None:
    # Their objects refer to each other, and nothing else would look for such rings soon. It is quick, because what
    # was there when the server began to serve is not looked through: `cli.serve` froze it.
    gc.collect()
    give_back()
