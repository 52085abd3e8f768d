"""Keeps the resident modes within a limit of memory: the fastest always there, others as they are wanted.

Modes are loaded and evicted by a thread of its own, never on a request's path.
"""

import logging
import threading
import time
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from wenet_runtime.engines.base import Engine
from wenet_runtime.errors import SettingsError
from wenet_runtime.memory import MB, Footprint, evicted_for, together
from wenet_runtime.pool import Pool

REST_S = 1.0  # between evictions: requests that want modes by turns must not keep the device busy with loading
CLOSING_S = 30.0
FIRST_REST_S, LONGEST_REST_S = 1.0, 300.0  # of a mode that does not load: doubled each time

_LOG = logging.getLogger(__name__)


def measurable(pool: Pool, limit_mb: Optional[float]) -> List[str]:
    """The modes in service that fit into the limit alone."""
    served = [one for one in pool.modes if one not in pool.residency.out]
    return [one for one in served if limit_mb is None or pool.footprint(one).alone <= limit_mb * MB]


def in_turns(pool: Pool, limit_mb: Optional[float]) -> Iterator[Mapping[str, Engine]]:
    """The engine of every mode that fits once, as many at a time as fit together; before anything is served.

    A mode that does not load, or answers wrongly, is taken out of service instead.
    """
    if limit_mb is None:
        yield pool.engines
        return
    left = measurable(pool, limit_mb)
    footprints = {one: pool.footprint(one) for one in left}
    while left:
        turn: List[str] = []
        for one in left:
            if evicted_for(one, (), turn, footprints, limit_mb * MB) is not None:
                turn.append(one)
        pool.load_sound(turn)
        yield pool.engines
        for one in turn:
            pool.evict(one)
        left = [one for one in left if one not in turn]


class Loader:
    """Loads and evicts a pool's modes in the background.

    Args:
        pool: with no mode resident.
        limit_mb: what the resident modes may take together.
        fastest: loaded before this returns, and never evicted.
        order: others, loaded without being asked for while there is room, most useful first.
        rest_s: time between evictions.

    Raises:
        SettingsError: the fastest mode does not fit.
        EngineError: the fastest mode does not load.
    """

    def __init__(
        self, pool: Pool, limit_mb: float, fastest: str, order: Sequence[str], *, rest_s: float = REST_S
    ) -> None:
        self._pool = pool
        self._limit = limit_mb * MB
        self._fastest = fastest
        self._order = [one for one in order if one != fastest]
        self._rest_s = rest_s
        self._footprints: Dict[str, Footprint] = {one: pool.footprint(one) for one in pool.modes}
        self._changed = threading.Condition()
        self._wanted: List[str] = []  # the latest last
        self._rested_s = 0.0  # when modes may be evicted again
        self._rests: Dict[str, float] = {}  # of modes that did not load the last time, s
        self._due_s: Dict[str, float] = {}  # when those may be loaded again
        self._closing = False
        self._check_fastest()
        pool.load(fastest)
        self._take_out_what_never_fits()
        self._thread = threading.Thread(target=self._work, name="wenet-loader", daemon=True)
        self._thread.start()

    def _check_fastest(self) -> None:
        alone = self._footprints[self._fastest].alone
        if alone > self._limit:
            raise SettingsError(
                f"--memory-mb {self._limit / MB:g} does not hold the fastest mode, {self._fastest}: "
                f"give at least {alone / MB:.3g}"
            )

    def _take_out_what_never_fits(self) -> None:
        for one in self._pool.modes:
            if one == self._fastest or one in self._pool.residency.out:
                continue  # the fastest fits alone, and is there once
            both = together([self._footprints[self._fastest], self._footprints[one]])
            if both > self._limit:
                reason = f"beside {self._fastest} it needs --memory-mb {both / MB:.3g}"
                self._pool.reject(one, reason)

    def want(self, mode_id: str) -> None:
        """Have a mode loaded soon. Returns at once."""
        with self._changed:
            if mode_id in self._wanted:
                self._wanted.remove(mode_id)
            self._wanted.append(mode_id)
            self._changed.notify()

    def close(self) -> None:
        """Load nothing any more, and wait for what is being loaded."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSING_S)

    def _work(self) -> None:
        while True:
            with self._changed:
                task = self._next()
                while task is None and not self._closing:
                    self._changed.wait(self._patience_s())
                    task = self._next()
                if task is None or self._closing:
                    return
            self._bring(*task)

    def _patience_s(self) -> Optional[float]:
        """How long nothing can be done unless somebody asks."""
        now_s = time.monotonic()
        ends_s = list(self._due_s.values())
        if self._wanted and self._rested_s > now_s:
            ends_s.append(self._rested_s)
        return max(0.0, min(ends_s) - now_s) if ends_s else None

    def _next(self) -> Optional[Tuple[str, List[str]]]:
        """The mode to load next and those to evict for it."""
        now_s = time.monotonic()
        for one in [one for one, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[one]
            self._pool.restore(one)
        resident = self._pool.resident
        unfit = {*resident, *self._pool.residency.out}
        self._wanted = [one for one in self._wanted if one not in unfit]
        going = [one for one in resident if one != self._fastest]
        for one in reversed(self._wanted):
            evicted = evicted_for(one, going, [self._fastest], self._footprints, self._limit)
            if evicted is not None and (not evicted or time.monotonic() >= self._rested_s):
                return one, evicted
        for one in self._order:
            if one not in unfit and evicted_for(one, (), resident, self._footprints, self._limit) is not None:
                return one, []
        return None

    def _bring(self, mode_id: str, evicted: Sequence[str]) -> None:
        try:
            for one in evicted:
                self._pool.evict(one)
            self._pool.load(mode_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must cost no more than this mode
            rest_s = self._rests[mode_id] = min(LONGEST_REST_S, 2 * self._rests.get(mode_id, FIRST_REST_S / 2))
            _LOG.warning("mode '%s' cannot be loaded, and is tried again in %g s: %s", mode_id, rest_s, error)
            with self._changed:
                self._due_s[mode_id] = time.monotonic() + rest_s
            self._pool.suspend(mode_id, "it cannot be loaded; it is tried again")
        else:
            self._rests.pop(mode_id, None)
        if evicted:
            with self._changed:
                self._rested_s = time.monotonic() + self._rest_s
                self._wanted.clear()  # whoever still wants another one will say so again
