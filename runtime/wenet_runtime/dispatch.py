"""One request on the modes that are there: chooses one, has a better one loaded for the next, and runs it."""

import contextlib
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

from numpy.typing import NDArray

from wenet_runtime.budget import Deadline, RequestOptions
from wenet_runtime.canary import WARMUP_RUNS
from wenet_runtime.controller import Controller
from wenet_runtime.engines.base import Tensors
from wenet_runtime.errors import NotResident, Refused
from wenet_runtime.meters.base import Meter
from wenet_runtime.policy import Choice
from wenet_runtime.pool import Pool


@dataclass(frozen=True)
class Run:
    """An inference that has taken place.

    Attributes:
        start_s, end_s: monotonic.
        energy_mj: of one row, and where that is from; None when unknown.
    """

    choice: Choice
    outputs: Dict[str, NDArray[Any]]
    start_s: float
    end_s: float
    energy_mj: Optional[float]
    energy_source: str


class Dispatch:
    """Brings the controller, the pool and the meter together.

    Args:
        pool: the modes that are there.
        controller: predicts and chooses.
        meter: measures the energy of each inference.
        want: has a mode loaded in the background; None if all modes are resident always.
    """

    def __init__(
        self, pool: Pool, controller: Controller, meter: Meter, want: Optional[Callable[[str], None]] = None
    ) -> None:
        self._pool = pool
        self._controller = controller
        self._meter = meter
        self._want = want

    def choose(
        self, options: RequestOptions, deadline: Deadline, *, rows: int, now_s: float, wait_ms: float = 0.0
    ) -> Choice:
        """Choose among the resident modes; see `Controller.choose`."""
        residency = self._pool.residency
        try:
            choice = self._controller.choose(
                options, deadline, rows=rows, now_s=now_s, wait_ms=wait_ms, residency=residency
            )
        except Refused as refusal:
            if refusal.wanted is not None:
                self._bring(refusal.wanted)
                if isinstance(refusal, NotResident):
                    refusal.retry_after_ms = self._pool.load_ms(refusal.wanted)
            raise
        if choice.wanted is not None:
            self._bring(choice.wanted)
        return choice

    def run(
        self,
        inputs: Tensors,
        options: RequestOptions,
        deadline: Deadline,
        *,
        now_s: float,
        chosen: Callable[[Choice], None],
    ) -> Run:
        """Choose and run, telling the choice before it runs. Raises what `choose` and `Engine.infer` raise."""
        rows = next(iter(inputs.values())).shape[0]
        while True:
            choice = self.choose(options, deadline, rows=rows, now_s=now_s)
            # A mode may go between its choice and its use. What is chosen instead may go too, but the fastest
            # never does, and a request that may not have that one is refused.
            with contextlib.suppress(NotResident), self._pool.use(choice.mode_id) as engine:
                chosen(choice)
                start_s = time.monotonic()
                outputs = engine.infer(inputs)
                end_s = time.monotonic()
                energy_mj, source = self._energy(choice, rows, start_s, end_s)
                return Run(choice, outputs, start_s, end_s, energy_mj, source)

    def _energy(self, choice: Choice, rows: int, start_s: float, end_s: float) -> Tuple[Optional[float], str]:
        measured = self._meter.energy_mj(start_s, end_s)
        if measured is not None:
            return measured / rows, self._meter.source
        if choice.energy_mj is not None:
            return choice.energy_mj, "estimate"
        return None, "none"

    def warm_up(self, inputs: Tensors) -> None:
        """Run every resident mode on this thread, on which its first run would be slow."""
        for mode_id in self._pool.resident:
            with contextlib.suppress(NotResident), self._pool.use(mode_id) as engine:
                for _ in range(WARMUP_RUNS):
                    engine.infer(inputs)

    def probe(self, inputs: Tensors) -> Tuple[str, float, float]:
        """Run the fastest resident mode; its id, and when it began and ended."""
        profiles = self._controller.profiles
        mode_id = min(self._pool.resident, key=lambda one: profiles[one].p50_ms)
        with self._pool.use(mode_id) as engine:
            start_s = time.monotonic()
            engine.infer(inputs)
            return mode_id, start_s, time.monotonic()

    def _bring(self, mode_id: str) -> None:
        if self._want is not None:
            self._want(mode_id)
