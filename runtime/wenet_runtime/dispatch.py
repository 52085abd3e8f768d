"""Runs what was chosen on the modes that are there: one mode, or a cheap one and then, for some rows, a better one."""

import contextlib
import logging
import math
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.assignment import Part
from wenet_runtime.canary import WARMUP_RUNS
from wenet_runtime.cascade import Cascade, merged, rows_of
from wenet_runtime.engines.base import Tensors
from wenet_runtime.errors import NotResident
from wenet_runtime.faults import ERROR, NOT_FINITE, ModeFault
from wenet_runtime.meters.base import Meter
from wenet_runtime.policy import Choice
from wenet_runtime.pool import Pool

_LOG = logging.getLogger(__name__)
Outputs = Dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Run:
    """Inferences that have taken place, of one batch.

    Attributes:
        start_s, end_s: monotonic.
        energy_mj: of the whole batch, measured; None when unknown.
        parts: what ran, mode by mode.
        escalated: by row, whether a cascade's second mode answered; None where no cascade ran.
    """

    outputs: Outputs
    start_s: float
    end_s: float
    energy_mj: Optional[float]
    parts: Tuple[Part, ...]
    escalated: Optional[NDArray[np.bool_]] = None


class Dispatch:
    """Brings the pool and the meter together, on the engine's thread.

    Args:
        pool: the modes that are there.
        meter: measures the energy of each inference.
        cascade: the rules by which a cheap mode's answer is taken or not.
    """

    def __init__(self, pool: Pool, meter: Meter, cascade: Optional[Cascade] = None) -> None:
        self._pool = pool
        self._meter = meter
        self._cascade = cascade
        self._meter_failed = False

    def run(self, inputs: Tensors, choice: Choice) -> Run:
        """Run a batch.

        Raises:
            NotResident: a mode has gone.
            ModeFault: a mode failed, by whatever its engine raised, or by numbers that are none.
        """
        start_s = time.monotonic()
        parts: List[Part] = []
        escalated = None
        if choice.rule is None or self._cascade is None:
            outputs = self._infer(choice.mode_id, inputs, parts)
        else:
            # The second mode is held before the first runs: what ran must not be lost because the other has gone.
            with self._pool.use(choice.mode_id):
                outputs = self._infer(choice.rule.first, inputs, parts)
                escalated = self._cascade.escalates(choice.rule, outputs)
                if escalated.any():
                    more = self._infer(choice.mode_id, rows_of(inputs, escalated), parts)
                    outputs = merged(outputs, more, escalated)
        end_s = time.monotonic()
        return Run(outputs, start_s, end_s, self._energy_mj(start_s, end_s), tuple(parts), escalated)

    def _energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
        """What the meter read, if that is possible: no sensor may cost an answer."""
        try:
            read_mj = self._meter.energy_mj(start_s, end_s)
        except Exception:  # noqa: BLE001 - a meter may be anybody's
            if not self._meter_failed:
                _LOG.exception("the meter failed: energy is unknown until it answers again")
            self._meter_failed = True
            return None
        self._meter_failed = False
        return read_mj if read_mj is not None and math.isfinite(read_mj) and read_mj > 0 else None

    def _infer(self, mode_id: str, inputs: Tensors, parts: List[Part]) -> Outputs:
        with self._pool.use(mode_id) as engine:
            start_s = time.monotonic()
            try:
                outputs = engine.infer(inputs)
            except Exception as error:  # an engine may raise anything
                raise ModeFault(mode_id, ERROR) from error
            parts.append(Part(mode_id, next(iter(inputs.values())).shape[0], (time.monotonic() - start_s) * 1e3))
            if not all(_is_finite(values) for values in outputs.values()):
                self._excuse(mode_id, inputs, outputs)
            return outputs

    def _excuse(self, mode_id: str, inputs: Tensors, outputs: Outputs) -> None:
        """Whether numbers that are none come from what was asked.

        So they do where the input has some itself, and where numbers too large for the mode were given: it then
        answers its golden input as ever. Raises `ModeFault` if it does not.
        """
        asked, answered = _finite_rows(inputs), _finite_rows(outputs)
        if (answered | ~asked).all():
            return
        try:
            self._pool.check(mode_id, rows=1)
        except Exception as error:  # an engine may raise anything
            raise ModeFault(mode_id, NOT_FINITE) from error

    def warm_up(self, inputs: Tensors) -> None:
        """Run every resident mode on this thread, on which its first run would be slow."""
        for mode_id in self._pool.resident:
            with contextlib.suppress(NotResident), self._pool.use(mode_id) as engine:
                for _ in range(WARMUP_RUNS):
                    engine.infer(inputs)

    def probe(self, inputs: Tensors, mode_id: str) -> Part:
        """Run a mode once, to see how long it takes."""
        parts: List[Part] = []
        self._infer(mode_id, inputs, parts)
        return parts[0]


def _is_finite(values: NDArray[Any]) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _finite_rows(tensors: Tensors) -> NDArray[np.bool_]:
    """By row, whether all of its numbers are some; what holds no floating-point numbers is."""
    rows = next(iter(tensors.values())).shape[0]
    finite = np.ones(rows, np.bool_)
    for values in tensors.values():
        if values.dtype.kind == "f":
            finite &= np.isfinite(values).reshape(rows, -1).all(axis=1)
    return finite
