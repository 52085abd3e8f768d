"""Watts from NVIDIA's `tegrastats`: a child process, read on a thread of its own and started again when it ends."""

import logging
import shutil
import threading
import time
from typing import Callable, List, Optional, Sequence, Set, Tuple

from wenet_runtime.errors import MeterError
from wenet_runtime.meters.base import OK, STALE, UNAVAILABLE, MeterState
from wenet_runtime.meters.line_child import LineChild
from wenet_runtime.meters.rails import Total, rotated, whole_board
from wenet_runtime.meters.sampler import LEAST_STALE_S, MAX_FAILURES, STALE_PERIODS, TracedMeter
from wenet_runtime.meters.tegrastats import Reading, parse_line
from wenet_runtime.meters.trace import PowerTrace

NAME, USUAL_PLACE = "tegrastats", "/usr/bin/tegrastats"
FIRST_READING_S = 3.0
WAKE_S = 0.25  # how soon a close or a silence is noticed
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 30.0
SILENCE = 10  # times the age at which a reading is stale
HOPELESS = 3  # one line may be damaged and one start may fail; so many in a row are no accident
CLOSING_S = 5.0

NO_RAILS = (
    "permission: tegrastats prints no power rails. Either this user may not read them: run as root (in a container as "
    "uid 0), or until the next boot `sudo chmod o+r "
    "/sys/bus/i2c/drivers/ina3221x/*/iio:device*/{rail_name_*,in_power*_input}` (JetPack 4); or this board has none "
    "(Nano 2GB), and nothing on it can be measured"
)

_LOG = logging.getLogger(__name__)


class TegrastatsMeter(TracedMeter):
    """Whole-board power from what `tegrastats` prints: each line's momentary value, stamped when it arrives.

    A child that ends, or says nothing for ten times as long as readings stay fresh, is started again, at first soon and
    then less and less often; energy of a window over the gap is unknown. Of lines that arrive together only the newest
    counts, because the others' times are not known.

    Args:
        rail: the rail or rails ("A+B") that are the whole board, if not what its kind says.
        interval_ms: time between lines that is asked for; the real one is a little longer.
        command: the program, if it is not in the usual places.
        first_reading_s: how long to wait here for the first reading.
        trace: where readings go; stale after ten intervals, at least half a second, if not given.
        clock: the monotonic clock.

    Raises:
        MeterError: there is no such program, or no reading came; why, and what to do. Nothing then runs.
    """

    def __init__(
        self,
        rail: Optional[str] = None,
        *,
        interval_ms: int = 100,
        command: Optional[str] = None,
        first_reading_s: float = FIRST_READING_S,
        trace: Optional[PowerTrace] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = (_found(command), "--interval", str(interval_ms))
        interval_s = interval_ms / 1e3
        if trace is None:
            trace = PowerTrace(max(LEAST_STALE_S, STALE_PERIODS * interval_s))
        super().__init__("rail:unknown", "unknown", trace, interval_s=interval_s, clock=clock)
        self._asked = rail
        self._rails: Tuple[str, ...] = ()  # those of the first reading, and so of all
        self._without = 0  # lines in a row that did not say what the board draws
        self._lacks = ""  # why the last line of this child did not
        self._refused = False
        silent_s = f"{trace.stale_after_s:g} s"
        self._quiet = (STALE, f"{NAME} has printed no line for more than {silent_s}")
        self._trouble = self._quiet  # what is the matter when no reading is fresh
        self._logged: Set[str] = set()
        self._decided = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wenet-tegrastats", daemon=True)
        self._thread.start()
        self._decided.wait(first_reading_s)
        if not self._rails:
            self.close()
            raise MeterError(f"no power from {self._command[0]}: {self._trouble[1]}")

    def state(self) -> MeterState:
        """See `Meter.state`."""
        if self._trace.fresh(self._clock()):
            return self._told(OK, "")
        return self._told(*self._trouble)

    def close(self) -> None:
        """End the child, by force if it will not go, and read no more."""
        self._closing.set()
        self._thread.join(CLOSING_S)

    def _run(self) -> None:
        pause_s, failed = FIRST_PAUSE_S, 0
        while True:
            if self._one_life():
                pause_s, failed = FIRST_PAUSE_S, 0
            else:
                failed += 1
            if failed >= HOPELESS:
                self._decided.set()
            if self._refused or self._closing.wait(pause_s):
                return
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._restarts += 1

    def _one_life(self) -> bool:
        """Run the child until it ends, falls silent or is no longer wanted; whether it gave a reading."""
        try:
            child = LineChild(self._command)
        except OSError as error:
            self._tell(f"{self._command[0]} cannot be started ({error.strerror})")
            return False
        self._lacks = ""
        readings = 0
        silent_s = SILENCE * self._trace.stale_after_s
        heard_s = self._clock()
        why = ""
        while not (why or self._refused or self._closing.is_set()):
            lines = child.lines(WAKE_S)
            now_s = self._clock()
            if lines is None:
                why = f"{NAME} ended"
            elif lines:
                heard_s = now_s
                readings += self._take(lines, now_s)
            elif now_s - heard_s > silent_s:
                why = f"{NAME} printed no line for more than {silent_s:g} s and was ended"
        self._trace.interrupt()  # before the child's end is waited for
        if why:
            self._trouble = (STALE, why)
            said = f"; {self._lacks}" if self._lacks else ""
            self._tell(f"{why} ({_named(child.end())}), it is started again{said}")
        else:
            child.end()
        return readings > 0

    def _take(self, lines: Sequence[str], at_s: float) -> bool:
        totals: List[Total] = [total for total in map(self._whole_board, lines) if total is not None]
        if not totals:
            return False
        self._trace.add(at_s, totals[-1].mw / 1e3)
        if not self._rails:
            self._rail = "+".join(totals[-1].rails)
            self.source = f"rail:{self._rail}"
            self._rails = totals[-1].rails
            self._decided.set()
        return True

    def _whole_board(self, line: str) -> Optional[Total]:
        if self._refused:
            return None
        reading = parse_line(line)
        total = whole_board(reading.rails_mw, self._asked)
        if total is not None and total.rails == (self._rails or total.rails):
            self._without, self._lacks, self._trouble = 0, "", self._quiet
            return total
        labels = rotated(reading.rails_mw) if self._asked is None else None
        self._lacks = labels or self._lacking(line, reading)
        self._trouble = (UNAVAILABLE, self._lacks)
        self._without += 1
        if self._without >= HOPELESS:
            # Wrong labels are wrong also while the load is light enough to hide it.
            self._refused = labels is not None
            self._decided.set()
        return None

    def _lacking(self, line: str, reading: Reading) -> str:
        """Why the line does not say what the board draws, and what to do."""
        if not reading.known:
            return f"what it prints is not a line of {NAME}: {line[:80]!r}"
        if not reading.rails_mw:
            return NO_RAILS
        there = ", ".join(sorted(reading.rails_mw))
        if self._rails:
            return f"it no longer prints {self._rail}, only {there}"
        if self._asked is not None:
            return f"there is no rail {self._asked}: name one of {there} with --power-rail"
        return f"whether {there} are the whole board is not known: name one, or some joined by +, with --power-rail"

    def _tell(self, trouble: str) -> None:
        self._trouble = (STALE, trouble)
        if trouble not in self._logged and len(self._logged) < MAX_FAILURES:
            self._logged.add(trouble)
            _LOG.warning("%s: %s", self.source, trouble)


def _found(command: Optional[str]) -> str:
    found = shutil.which(command or NAME) or (None if command else shutil.which(USUAL_PLACE))
    if found is None:
        raise MeterError(
            f"there is no program {command or NAME}: it comes with L4T on a Jetson, and a container needs "
            f"-v {USUAL_PLACE}:{USUAL_PLACE}:ro"
        )
    return found


def _named(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
