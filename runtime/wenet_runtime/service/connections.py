"""All open connections: how many there may be, and one clock that looks after their deadlines.

A connection arms no timer of its own: every tenth of a second each is asked whether its time is up, so that what a
slow client costs does not grow with what it sends.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Callable, Dict, Optional, Protocol, Tuple

MAX_CONNECTIONS = 256  # that of --max-connections
TICK_S = 0.1


@dataclass(frozen=True)
class Deadlines:
    """How long a client may take, s.

    Attributes:
        first_byte_s: a new connection's first byte.
        head_s: a request's whole head, after its first byte.
        request_s: the whole request, after its first byte.
        reply_s: any progress in taking a reply.
        idle_s: the next request, after the last reply.
        linger_s: to read an answer after which nothing more is taken.
        drop_s: to send the rest of a body whose request was answered before, where the connection then ends.
        quiet_s: without a whole request, before it has to give way where there are too many.
    """

    first_byte_s: float = 10.0
    head_s: float = 5.0
    request_s: float = 10.0
    reply_s: float = 10.0
    idle_s: float = 30.0
    linger_s: float = 1.0
    drop_s: float = 5.0
    quiet_s: float = 1.0


class Watched(Protocol):
    """What is asked of a connection."""

    def quiet(self) -> Optional[Tuple[bool, float]]:
        """Whether it is in the midst of a request, and since when, monotonic, there has been no whole one of it.

        None while one is answered.
        """

    def give_way(self) -> None:
        """Close it now, quiet as it is."""

    def abort(self) -> None:
        """Close it now, whatever it does."""

    def check(self, now_s: float) -> None:
        """End what has taken too long."""


class Connections:
    """The open connections of one server.

    Args:
        limit: how many may be served at a time. One more is let in if a quiet one can give way to it.
        deadlines: how long their clients may take.
        refused: told the problem's slug of each request that is answered before the application sees it.
        clock: monotonic, s.
    """

    def __init__(
        self,
        limit: int = MAX_CONNECTIONS,
        deadlines: Deadlines = Deadlines(),
        *,
        refused: Callable[[str], None] = lambda slug: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deadlines = deadlines
        self.clock = clock
        self.refused = refused
        self._limit = limit
        self._served: Dict[Watched, None] = {}  # in the order in which they came
        self._leaving: Dict[Watched, None] = {}
        self._timer: Optional[asyncio.TimerHandle] = None

    def __len__(self) -> int:
        return len(self._served)

    def admit(self, connection: Watched) -> bool:
        """Count a new connection; False if there are too many and none can give way."""
        if len(self._served) >= self._limit:
            until_s = self.clock() - self.deadlines.quiet_s
            found = ((one.quiet(), one) for one in self._served)
            quiet = [(state, one) for state, one in found if state is not None and state[1] <= until_s]
            if not quiet:
                return False
            # Idle ones before those that send slowly, the longest first.
            _, longest = min(quiet, key=lambda one: one[0])
            self.leave(longest)
            longest.give_way()
        self._served[connection] = None
        return True

    def leave(self, connection: Watched) -> None:
        """It is served no more, and is only given time to read what it was told."""
        self._served.pop(connection, None)
        self._leaving[connection] = None
        if len(self._leaving) > self._limit:
            longest = next(iter(self._leaving))
            del self._leaving[longest]
            longest.abort()

    def lost(self, connection: Watched) -> None:
        """It is closed."""
        self._served.pop(connection, None)
        self._leaving.pop(connection, None)

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look after their deadlines from now on."""
        self._timer = loop.call_later(TICK_S, self._tick, loop)

    def close(self) -> None:
        """Look after them no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self.watch(loop)
        now_s = self.clock()
        for connection in (*self._served, *self._leaving):
            connection.check(now_s)
