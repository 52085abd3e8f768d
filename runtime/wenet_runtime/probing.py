"""Runs a mode once when nothing waits, to learn whether the device is still as slow as it was.

Asked for when a request was refused and nothing ran lately: without this a device that was slow once could refuse every
request and so never be seen fast again.
"""

import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Deque, Optional, Tuple

from wenet_runtime.controller import Controller
from wenet_runtime.dispatch import Dispatch
from wenet_runtime.engines.base import Tensors
from wenet_runtime.errors import EngineError
from wenet_runtime.pool import Pool


class Probing:
    """What a probe needs to know.

    Args:
        dispatch: runs it.
        pool: the modes that are there.
        controller: learns how long it took.
        inputs: what is run; None never probes.
        changed: held while the controller is used.

    """

    def __init__(
        self,
        dispatch: Dispatch,
        pool: Pool,
        controller: Controller,
        inputs: Optional[Tensors],
        *,
        changed: threading.Condition,
    ) -> None:
        self._asked = False
        self._measured: Deque[Tuple[str, Future[float]]] = deque()
        self._mode_id: Optional[str] = None
        self._dispatch = dispatch
        self._pool = pool
        self._controller = controller
        self._inputs = inputs
        self._changed = changed

    @property
    def wanted(self) -> bool:
        """Whether a mode is to be run."""
        return self._asked or bool(self._measured)

    def ask(self, mode_id: Optional[str]) -> None:
        """Have a mode run once, the fastest if none is named; `changed` is held."""
        self._asked = True
        self._mode_id = mode_id
        self._changed.notify()

    def measure(self, mode_id: str) -> "Future[float]":
        """Have a mode run once; what comes of it is told to who asked, and taught to nobody; `changed` is held."""
        told: Future[float] = Future()
        self._measured.append((mode_id, told))
        self._changed.notify()
        return told

    def run(self) -> Optional[float]:
        """Run one if it was asked for, on the engine's thread; returns when something was learned, monotonic."""
        if self._measured:
            self._measure(*self._measured.popleft())
            return None
        asked_for, self._asked = self._asked, False
        if self._inputs is None or not asked_for:
            return None
        profiles, out = self._controller.profiles, self._pool.residency.out
        there = [one for one in self._pool.resident if one in profiles and one not in out]
        asked = self._mode_id if self._mode_id in there else None
        part = self._dispatch.probe(self._inputs, asked or min(there, key=lambda one: profiles[one].p50_ms))
        with self._changed:
            now_s = time.monotonic()
            self._controller.predictor.doubt()
            self._controller.observe(part.mode_id, part.ms, part.rows, now_s)
        return now_s

    def _measure(self, mode_id: str, told: "Future[float]") -> None:
        if not told.set_running_or_notify_cancel():
            return
        try:
            if self._inputs is None:
                raise EngineError("there is nothing to measure with: this runtime has no inputs of its own")
            told.set_result(self._dispatch.probe(self._inputs, mode_id).ms)
        except Exception as error:  # noqa: BLE001 - told to who asked
            told.set_exception(error)
