"""The next bundle: verified and opened beside the one that serves, for as long as somebody waits for it."""

import asyncio
from pathlib import Path
from typing import Awaitable, Callable, Optional

from wenet_runtime.bundle import Bundle
from wenet_runtime.service.aside import Aside
from wenet_runtime.service.bundle_root import place_of
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.retiring import close_here
from wenet_runtime.service.serving import Serving

STOPPING = "the server is shutting down: ask the next one"
STOP_S = 0.5  # for an opening that nobody waits for any more to notice that


class Preparing:
    """One bundle at a time. Everything but `join` is called on the event loop.

    Args:
        verify: opens a bundle and checks it. Raises `BundleError`.
        open_next: makes a verified bundle ready to be served. Raises any `WeNetError`.
        root: the folder that bundles may come from.
    """

    def __init__(self, verify: Callable[[Path], Bundle], open_next: Callable[[Bundle], Serving], root: Path) -> None:
        self.verify = verify
        self.open_next = open_next
        self._root = root
        self._aside = Aside("wenet-opening")
        self._task: Optional[asyncio.Task[Serving]] = None
        self._given_up = False

    async def prepared(self, path: str, make_room: Callable[[], Awaitable[None]]) -> Serving:
        """The bundle there, ready to be served.

        Args:
            path: of its directory, see `place_of`.
            make_room: called once it is verified, before it is loaded.

        Raises:
            Problem: conflict, at once when it is given up; or what `place_of` and `make_room` raise.
            WeNetError: the bundle cannot be served.
        """

        async def prepare() -> Serving:
            bundle = await self._aside.run(lambda: self.verify(place_of(self._root, path)))
            await make_room()
            return await self._aside.run(lambda: self.open_next(bundle), close_here)

        self._task = asyncio.ensure_future(prepare())
        try:
            return await self._task
        except asyncio.CancelledError:
            if self._given_up:
                raise Problem("conflict", STOPPING) from None
            raise
        finally:
            self._task = None

    def give_up(self) -> None:
        """Wait for no bundle any more: the server takes no new work. What is opened all the same is closed again."""
        self._given_up = True
        if self._task is not None:
            self._task.cancel()

    def join(self) -> bool:
        """Give what was given up the time to end of itself; False if it still runs then."""
        return self._aside.join(STOP_S)
