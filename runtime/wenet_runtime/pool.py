"""Which modes are resident as engines: loads, warms and checks them, lends them out, evicts and closes them.

What is resident may change while requests are answered; `loader` decides about it.
"""

import logging
import threading
import time
from dataclasses import replace
from typing import Callable, Dict, Iterable, List, Mapping, Optional

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.canary import Canary
from wenet_runtime.engines.base import Artifact, Backend, Engine, numerics_of
from wenet_runtime.errors import EngineError, NotResident
from wenet_runtime.memory import Footprint, footprint_of
from wenet_runtime.residency import Residency

Progress = Callable[[str, int, int], None]

_LOG = logging.getLogger(__name__)


class Pool:
    """Modes of a bundle as engines. Any thread may load, lend and evict; one at a time uses an engine.

    Args:
        bundle: whose modes.
        backend: what loads them.
        artifact: gives a mode as the backend built it.
        progress: told (what, done, total).
        load: load all modes here and now.
        release: told of a mode that was evicted and of those that are kept, so that its memory can be given back.

    Attributes:
        threads: of a mode's inferences, by its id, where not the backend's own number; set before it is loaded.

    Raises:
        EngineError: a mode does not load, or does not answer its golden input as the exporter did.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        artifact: Callable[[Mode], Artifact],
        progress: Progress = lambda what, done, total: None,
        *,
        load: bool = True,
        release: Callable[[str, Iterable[str]], None] = lambda mode_id, kept: None,
    ) -> None:
        self._modes = {mode.id: mode for mode in bundle.modes}
        self._backend = backend
        self._artifact = artifact
        self._progress = progress
        self._release = release
        self.threads: Dict[str, int] = {}
        self._footprints: Dict[str, Footprint] = {}
        self._load_ms: Dict[str, float] = {}
        # What follows changes under this lock only.
        self._changed = threading.Condition()
        self._engines: Dict[str, Engine] = {}  # least recently used first
        self._users: Dict[str, int] = dict.fromkeys(self._modes, 0)
        self._residency = Residency()  # replaced as a whole, so that it may be read without the lock
        self._closed = False
        try:
            self._canary = Canary(bundle, simulated=backend.name == "sim", computed=lambda mode: self.computed(mode.id))
            if load:
                self.load_all(list(self._modes))
        except BaseException:
            self.close()
            raise

    @property
    def modes(self) -> List[str]:
        """Ids of all modes that may be loaded, most accurate first."""
        return list(self._modes)

    @property
    def engine_name(self) -> str:
        """Which of the engines runs the modes."""
        return self._backend.name

    def computed(self, mode_id: str) -> str:
        """In which of `PRECISIONS` a mode is computed here, which may not be its own."""
        return numerics_of(self._backend, self._modes[mode_id]).computed

    @property
    def residency(self) -> Residency:
        """Which modes can answer at this moment."""
        return self._residency

    @property
    def resident(self) -> List[str]:
        """Ids of the modes that can answer at once, least recently used first."""
        with self._changed:
            return list(self._engines)

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The resident engines by mode id, for as long as nobody loads or evicts."""
        with self._changed:
            return dict(self._engines)

    def use(self, mode_id: str) -> "_Use":
        """The engine of a resident mode, which stays open to the end of a `with` block.

        Raises, as it is entered:
            NotResident: it is not resident, or not any more.
        """
        return _Use(self, mode_id)

    def _take(self, mode_id: str) -> Engine:
        with self._changed:
            engine = self._engines.pop(mode_id, None)
            if engine is None:
                raise NotResident(f"mode '{mode_id}' is not resident: resident are {', '.join(self._engines)}")
            self._engines[mode_id] = engine  # the most recently used from now on
            self._users[mode_id] += 1
        return engine

    def _give_back(self, mode_id: str) -> None:
        with self._changed:
            self._users[mode_id] -= 1
            self._changed.notify_all()

    def load_all(self, mode_ids: List[str]) -> None:
        """Load modes one after another, telling the progress."""
        for done, mode_id in enumerate(mode_ids):
            self._progress(f"loading {mode_id}", done, len(mode_ids))
            self.load(mode_id)

    def load_sound(self, mode_ids: List[str]) -> List[str]:
        """The same, but one that does not load or answers wrongly is taken out of service, and the others are loaded.

        Returns:
            Those that are resident now.
        """
        for done, mode_id in enumerate(mode_ids):
            self._progress(f"loading {mode_id}", done, len(mode_ids))
            try:
                self.load(mode_id)
            except EngineError as error:
                self.reject(mode_id, str(error))
        return [one for one in mode_ids if one in self._residency.resident]

    def load(self, mode_id: str) -> None:
        """Load, warm and check a mode on this thread, then let it answer. One thread at a time may load.

        Raises:
            EngineError: it does not load, or answers its golden input wrongly.
        """
        if mode_id in self._residency.resident:
            return
        mode = self._modes[mode_id]

        def artifact() -> Artifact:
            given = self._artifact(mode)
            self._footprints[mode_id] = footprint_of(given)
            return given

        start_s = time.monotonic()
        engine = self._backend.load(mode, artifact, threads=self.threads.get(mode_id))
        try:
            self._canary.check(mode, engine)
        except BaseException:
            engine.close()
            raise
        self._load_ms[mode_id] = (time.monotonic() - start_s) * 1e3
        with self._changed:
            if not self._closed:
                self._engines[mode_id] = engine
                self._publish()
                return
        engine.close()

    def evict(self, mode_id: str) -> None:
        """Let a mode answer no more; it is closed, here, once nobody uses it."""
        with self._changed:
            engine = self._engines.pop(mode_id, None)
            self._publish()
            while self._users[mode_id]:
                self._changed.wait()
        if engine is not None:
            engine.close()
            self._release(mode_id, self.resident)

    def take_out(self, mode_id: str, reason: str) -> None:
        """Take a mode out of service for good."""
        self._become(lambda now: now.taken_out(mode_id, reason))

    def suspend(self, mode_id: str, reason: str) -> None:
        """Take a mode out of service that fails, until it is restored; it stays resident."""
        self._become(lambda now: now.suspended(mode_id, reason))

    def restore(self, mode_id: str) -> None:
        """Let a suspended mode serve again; one that was taken out for good stays out."""
        self._become(lambda now: now.restored(mode_id))

    def _become(self, change: Callable[[Residency], Residency]) -> None:
        with self._changed:
            self._residency = change(self._residency)
            self._changed.notify_all()

    def check(self, mode_id: str, *, rows: Optional[int] = None) -> None:
        """Have a resident mode answer its golden inputs again, their first `rows` if given; on the engine's thread.

        Raises:
            NotResident: it is not there.
            EngineError: it answers wrongly. And what `Engine.infer` raises.
        """
        with self.use(mode_id) as engine:
            self._canary.check(self._modes[mode_id], engine, rows=rows)

    def reject(self, mode_id: str, reason: str) -> None:
        """Take a mode out of service that was meant to serve, and warn."""
        _LOG.warning("mode '%s' is not served: %s", mode_id, reason)
        self.take_out(mode_id, reason)

    def _publish(self) -> None:
        self._residency = replace(self._residency, resident=frozenset(self._engines))
        self._changed.notify_all()

    def load_ms(self, mode_id: str) -> Optional[float]:
        """What it took until a mode could answer when it was loaded last; None if it never was."""
        return self._load_ms.get(mode_id)

    def footprint(self, mode_id: str) -> Footprint:
        """What a mode takes in memory; what a simulated one would take, from its parameters."""
        mode = self._modes[mode_id]
        if mode_id not in self._footprints:
            simulated = self._backend.name == "sim"
            self._footprints[mode_id] = (
                Footprint({}, 4 * mode.params) if simulated else footprint_of(self._artifact(mode))
            )
        return self._footprints[mode_id]

    def close(self) -> None:
        """Close every engine and what they share."""
        with self._changed:
            self._closed = True
            engines, self._engines = self._engines, {}
            self._publish()
        while engines:
            engines.popitem()[1].close()
        self._backend.close()


class _Use:
    """One use of a resident engine: a generator's context takes three times as long, at every inference."""

    def __init__(self, pool: Pool, mode_id: str) -> None:
        self._pool = pool
        self._mode_id = mode_id

    def __enter__(self) -> Engine:
        return self._pool._take(self._mode_id)

    def __exit__(self, *error: object) -> None:
        self._pool._give_back(self._mode_id)
