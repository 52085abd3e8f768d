"""Changes the bundle that is served, while it is served: another one, or the one before.

At most two bundles are in memory: the one that serves, and the one before it, which is kept whole so that going back
takes no time. The one before is closed when the next one is about to be loaded. Its engine thread sleeps: it has only
what was admitted to it to finish.
"""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any, Callable, Coroutine, Dict, List, Optional, Tuple

from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import WeNetError
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.bundle_root import without_paths
from wenet_runtime.service.inference import Service
from wenet_runtime.service.preparing import STOPPING, Preparing
from wenet_runtime.service.probation import WINDOW_S, fault
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.recalibration import measure_again
from wenet_runtime.service.retiring import close, left, tidy
from wenet_runtime.service.serving import Serving

LOOK_S = 1.0
LEAVE_S = 30.0  # no request takes so long but one whose engine stands still

_LOG = logging.getLogger(__name__)


class Bundles:
    """The bundle that is served and the one before it. Everything but `close` is called on the event loop.

    Args:
        service: what the routes serve from; its `active` is replaced here and nowhere else.
        verify, open_next, root: see `Preparing`.
        window_s: how long a new bundle is watched.
        look_s: how often.

    Attributes:
        draining: the server is about to stop.
        left_opening: `close` left a bundle's opening running.
        stop: begins that; set by the server, which has more to do for it.
    """

    def __init__(
        self,
        service: Service,
        *,
        verify: Callable[[Path], Bundle],
        open_next: Callable[[Bundle], Serving],
        root: Path,
        window_s: float = WINDOW_S,
        look_s: float = LOOK_S,
    ) -> None:
        self.draining = self.left_opening = False
        self.stop: Callable[[], None] = self.drain
        self._service = service
        self._preparing = Preparing(verify, open_next, root)
        self._window_s = window_s
        self._look_s = look_s
        self._previous: Optional[Serving] = None
        self._given_up: Optional[Serving] = None
        self._busy = False
        self._probation: Optional[asyncio.Task[None]] = None
        self._at_work: Optional[asyncio.Task[None]] = None  # so that it is not collected before it has ended
        self._rolled_back: Optional[Dict[str, str]] = None
        service.bundle_state = lambda: self.state

    @property
    def _servings(self) -> List[Serving]:
        return [one for one in (self._service.active, self._previous, self._given_up) if one is not None]

    @property
    def runtimes(self) -> List[Runtime]:
        """Of the bundle that is served, of the one before, and of one that was given up and is not closed yet."""
        return [one.runtime for one in self._servings]

    @property
    def pending(self) -> int:
        """Requests accepted and not answered yet."""
        return sum(one.pending for one in self.runtimes)

    @property
    def state(self) -> Dict[str, Any]:
        """For /v2/health."""
        return {
            "sha256": self._service.active.bundle.sha256,
            "previous_sha256": None if self._previous is None else self._previous.bundle.sha256,
            "changing": self._busy,
            "watched": self._probation is not None and not self._probation.done(),
            "rolled_back": self._rolled_back,
        }

    def drain(self) -> None:
        """Say to whoever asks that the server is about to stop; work is still taken, but no other bundle."""
        self.draining = True
        for one in self.runtimes:
            one.drain()

    def refuse(self) -> None:
        """Take no new work from now on, and wait for no other bundle."""
        self.draining = True
        self._preparing.give_up()
        for one in self.runtimes:
            one.refuse()

    def end(self) -> None:
        """Begin to stop the server. Raises `Problem` conflict if it has begun."""
        self.check_staying()
        self.stop()

    def check_staying(self) -> None:
        """Raises `Problem` conflict once the server is about to stop; from any thread."""
        if self.draining:
            raise Problem("conflict", STOPPING)

    def check_unchanging(self) -> None:
        """Raises `Problem` conflict while the bundle is being changed, or the server stops."""
        self.check_staying()
        if self._busy:
            raise Problem("conflict", "the bundle is being changed: wait until that is done")

    async def swap(self, path: str) -> Tuple[str, str]:
        """Serve another bundle: verified, loaded and checked beside the present one, which serves until then.

        Args:
            path: of its directory, see `place_of`.

        Returns:
            SHA-256 of what is served now, and of what was before.

        Raises:
            Problem: conflict, or bundle-invalid. All is as it was, but that after a bundle was verified the one
                before the present one is gone, because its memory is needed.
        """
        self.check_unchanging()
        self._busy = True
        try:
            serving = await self._preparing.prepared(path, self._forget_previous)
            if self.draining:
                await close(serving)
                self.check_staying()
        except WeNetError as error:
            self._service.metrics.swapped("failed")
            _LOG.warning("the bundle is not changed: %s", error)
            raise Problem("bundle-invalid", without_paths(str(error))) from None
        except Problem:
            self._service.metrics.swapped("failed")
            raise
        finally:
            self._busy = False
        self._rolled_back = None
        before = self._previous = self._activate(serving)
        self._service.metrics.swapped("done")
        self._probation = asyncio.ensure_future(self._watch(serving, before))
        return serving.bundle.sha256, before.bundle.sha256

    async def rollback(self) -> Tuple[str, str]:
        """Serve the bundle before again, at once; returns both sums as `swap` does. Raises `Problem` conflict."""
        self.check_unchanging()
        if self._previous is None:
            raise Problem("conflict", "there is no bundle to go back to: none was changed, or its memory was needed")
        return self._go_back(self._previous, "somebody asked for it")

    def recalibrate(self) -> None:
        """Begin to measure the modes that are served again. Raises `Problem` conflict."""
        self.check_unchanging()
        self._begin(lambda: measure_again(self._service.active))

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do this beside all else; until it is done nothing is changed."""

        async def done() -> None:
            try:
                await work()
            finally:
                self._busy = False

        self._busy = True
        self._at_work = asyncio.ensure_future(done())

    def _activate(self, serving: Serving) -> Serving:
        """Serve this from now on; returns what was served."""
        runtime, before = serving.runtime, self._service.active
        runtime.controller.throttled = before.runtime.controller.throttled
        self._service.active = serving
        self._service.metrics.follow(serving.bundle, runtime)
        if self.draining:  # a signal may come between any two lines
            runtime.drain()
        return before

    def _go_back(self, back: Serving, reason: str) -> Tuple[str, str]:
        self._stop_watching()
        self._previous = None
        given_up = self._given_up = self._activate(back)
        self._rolled_back = {"sha256": given_up.bundle.sha256, "reason": reason}
        self._service.metrics.swapped("rolled_back")
        sums = back.bundle.sha256, given_up.bundle.sha256
        _LOG.warning("the bundle %s… is served again instead of %s…: %s", sums[0][:12], sums[1][:12], reason)
        self._begin(self._let_go)
        return sums

    async def _let_go(self) -> None:
        serving = self._given_up
        if serving is None:
            return
        await left(serving, LEAVE_S)
        await close(serving)
        self._given_up = None
        del serving
        await tidy()

    async def _forget_previous(self) -> None:
        """Make room for another bundle. Raises `Problem` conflict where requests still need the one before."""
        self._stop_watching()
        previous = self._previous
        if previous is None:
            return
        if not await left(previous, LEAVE_S):
            raise Problem("conflict", "requests of the bundle before are still under way: try again later")
        self._previous = None
        await close(previous)
        del previous
        await tidy()

    def _stop_watching(self) -> None:
        if self._probation is not None:
            self._probation.cancel()  # it may be the one that asks, and then it ends here
        self._probation = None

    async def _watch(self, serving: Serving, before: Serving) -> None:
        """Go back when the new bundle does worse than the one before, while it is new."""
        hits, end_s = before.tally.hits, time.monotonic() + self._window_s
        while time.monotonic() < end_s and not self.draining:
            await asyncio.sleep(self._look_s)
            errors = serving.tally.errors + sum(serving.runtime.faults.values())
            reason = fault(hits, serving.tally.hits, errors, serving.runtime.trouble)
            if reason is not None and not self._busy and self._previous is before:
                self._go_back(before, reason)
                return

    def close(self, timeout_s: float) -> bool:
        """Finish accepted work and free everything; False if that took longer. After the event loop has ended."""
        end_s = time.monotonic() + timeout_s
        finished = [one.close(max(0.0, end_s - time.monotonic())) for one in self._servings]
        self.left_opening = not self._preparing.join()
        return all(finished)
