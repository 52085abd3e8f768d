"""A meter that asks a sensor at a steady rate, on a thread of its own."""

import logging
import threading
import time
from typing import Callable, Optional, Set

from wenet_runtime.errors import MeterError
from wenet_runtime.meters.base import OK, STALE, STARTING, UNAVAILABLE, MeterState, Power
from wenet_runtime.meters.trace import PowerTrace

STALE_PERIODS = 10
LEAST_STALE_S = 0.5
MAX_FAILURES = 16
CLOSING_S = 2.0

_LOG = logging.getLogger(__name__)


class CounterReset(ValueError):
    """A counter of energy was set back: what was used since the reading before is not known."""


class TracedMeter:
    """What meters with a trace have in common: energy, power and state follow from the trace.

    Args:
        source: as `Meter.source`.
        rail: what is measured, for people.
        trace: where readings go.
        interval_s: time between readings.
        clock: the monotonic clock.
    """

    def __init__(
        self,
        source: str,
        rail: str,
        trace: PowerTrace,
        *,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.idle_w: Optional[float] = None
        self._rail = rail
        self._trace = trace
        self._interval_s = interval_s
        self._clock = clock
        self._failure = ""
        self._restarts = 0

    def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
        """By integration over the window; see `Meter.energy_mj`."""
        return self._trace.energy_mj(start_s, end_s)

    def power(self) -> Optional[Power]:
        """The last reading and its age, also when it is stale; see `Meter.power`."""
        found = self._trace.latest(self._clock())
        return None if found is None else Power(found[0], self._rail, found[1])

    def state(self) -> MeterState:
        """See `Meter.state`."""
        now_s = self._clock()
        if self._trace.fresh(now_s):
            status = OK
        else:
            status = STARTING if self._trace.latest(now_s) is None else STALE
        return self._told(status, "" if status == OK else self._failure)

    def _told(self, status: str, detail: str) -> MeterState:
        stale_s, step_mw = self._trace.stale_after_s, self._trace.resolution_mw
        return MeterState(status, detail, self._restarts, self._interval_s, stale_s, step_mw)


class PolledMeter(TracedMeter):
    """A sensor that is read at a steady rate. A reading that fails leaves a gap and is logged once.

    Args:
        source, rail, clock: as of `TracedMeter`.
        read: gives one reading, or None where this one says nothing. May raise anything; a `MeterError` says that no
            reading will come until somebody does what it says, and ends the meter: nothing of what it read counts.
        interval_s: time between readings.
        record: puts a reading, stamped, into the trace: power in W, or `PowerTrace.add_energy` for a counter's steps.
        trace: where readings go; of its own age limit if not given.
    """

    def __init__(
        self,
        source: str,
        rail: str,
        read: Callable[[], Optional[float]],
        *,
        interval_s: float,
        record: Callable[[PowerTrace, float, float], None] = PowerTrace.add,
        trace: Optional[PowerTrace] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if trace is None:
            trace = PowerTrace(max(LEAST_STALE_S, STALE_PERIODS * interval_s))
        super().__init__(source, rail, trace, interval_s=interval_s, clock=clock)
        self._read = read
        self._record = record
        self._ended = ""
        self._failures: Set[str] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wenet-meter", daemon=True)
        self._thread.start()

    def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
        """See `TracedMeter.energy_mj`."""
        return None if self._ended else super().energy_mj(start_s, end_s)

    def power(self) -> Optional[Power]:
        """See `TracedMeter.power`."""
        return None if self._ended else super().power()

    def state(self) -> MeterState:
        """See `Meter.state`."""
        return self._told(UNAVAILABLE, self._ended) if self._ended else super().state()

    def _run(self) -> None:
        due_s = self._clock()
        while not self._ended:
            self._look()
            due_s = max(due_s + self._interval_s, self._clock())  # what was missed is not made up for
            if self._closing.wait(max(0.0, due_s - self._clock())):
                return

    def _look(self) -> None:
        before_s = self._clock()
        try:
            reading = self._read()
            if reading is not None:
                # A sensor behind a bus takes milliseconds: the reading is of the middle of that time.
                self._record(self._trace, (before_s + self._clock()) / 2, reading)
            self._failure = ""
        except MeterError as error:
            self._ended = str(error)
            _LOG.warning("%s: %s", self.source, error)
        except Exception as error:  # noqa: BLE001 - no sensor may end the meter
            if isinstance(error, CounterReset):
                self._trace.interrupt()  # else the next step would pass for all that was used until then
            self._failure = f"the sensor cannot be read ({error})"
            kind = f"{type(error).__name__}: {error}"
            if kind not in self._failures and len(self._failures) < MAX_FAILURES:
                self._failures.add(kind)
                _LOG.warning("%s: %s", self.source, kind)

    def close(self) -> None:
        """Read no more."""
        self._closing.set()
        self._thread.join(CLOSING_S)
