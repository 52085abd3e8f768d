"""Runs a mode once when nothing waits, to learn whether the device is still as slow as it was.

Asked for when a request was refused and nothing ran lately: without this a device that was slow once could refuse every
request and so never be seen fast again.
"""

import threading
import time
from typing import Optional

from wenet_runtime.controller import Controller
from wenet_runtime.dispatch import Dispatch
from wenet_runtime.engines.base import Tensors
from wenet_runtime.pool import Pool


class Probing:
    """What a probe needs to know.

    Args:
        dispatch: runs it.
        pool: the modes that are there.
        controller: learns how long it took.
        inputs: what is run; None never probes.
        changed: held while the controller is used.

    Attributes:
        wanted: whether a probe was asked for.
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
        self.wanted = False
        self._mode_id: Optional[str] = None
        self._dispatch = dispatch
        self._pool = pool
        self._controller = controller
        self._inputs = inputs
        self._changed = changed

    def ask(self, mode_id: Optional[str]) -> None:
        """Have a mode run once, the fastest if none is named."""
        self.wanted = True
        self._mode_id = mode_id

    def run(self) -> Optional[float]:
        """Run it if it was asked for, on the engine's thread; returns when that was, monotonic."""
        wanted, self.wanted = self.wanted, False
        if self._inputs is None or not wanted:
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
