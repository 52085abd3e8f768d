"""Tells systemd how the service does: ready, a line of state, signs of life, stopping.

The protocol of sd_notify(3) on a datagram socket. All of it happens in a thread of its own: whatever is behind that
socket, serving never waits for it. Without NOTIFY_SOCKET there is no thread.
"""

import asyncio
import logging
import math
import os
import re
import socket
import threading
import time
from typing import Callable, List, Mapping, Optional, Protocol, Sequence

from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.runtime import Runtime

TROUBLE_S = 60.0  # modes that fail have been tried again a few times by then: a new process may do better
STATUS_S = 10.0  # how often the state is told where nobody waits for signs of life
SHORTEST_S, LONGEST_S = 0.01, 3600.0
SEND_S = 1.0
CLOSING_S = 2.0
SHOWN_ANSWERS = 100

_LOG = logging.getLogger(__name__)


class Working(Protocol):
    """What runs modes; see `Runtime` for the members."""

    @property
    def alive(self) -> bool: ...

    @property
    def stuck_s(self) -> float: ...

    @property
    def stuck_after_s(self) -> float: ...

    @property
    def trouble(self) -> Optional[str]: ...


class Liveness:
    """Whether work goes on: looked at again and again, it says what has stood still since the last look.

    Args:
        loop: the event loop that serves.
        runtimes: whose engine threads run the modes: that of the bundle that is served, then those of others.
        patience_s: how long it may be impossible to answer anything.
        clock: monotonic, s.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        runtimes: Callable[[], Sequence[Working]],
        *,
        patience_s: float = TROUBLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._runtimes = runtimes
        self._patience_s = patience_s
        self._clock = clock
        self._turned = True
        self._troubled_s: Optional[float] = None

    def trouble(self) -> Optional[str]:
        """What stands still, in a few words; None while all goes on. Waits for nothing."""
        turned, self._turned = self._turned, False
        try:
            self._loop.call_soon_threadsafe(self._turn)
        except RuntimeError:  # it is closed
            return "the event loop has ended"
        if not turned:
            return "the event loop stands still"
        runtimes = self._runtimes()
        if not runtimes[0].alive:
            return "the engine's thread has ended"
        for one in runtimes:
            limit_s = one.stuck_after_s  # read first: a run that ends between both is not held against its thread
            if one.stuck_s > limit_s:
                return f"the engine's thread has not moved on for more than {limit_s:g} s"
        return self._lasting(runtimes[0].trouble)

    def _lasting(self, trouble: Optional[str]) -> Optional[str]:
        """The trouble if it has been there for longer than may be; it may be another one by now."""
        now_s = self._clock()
        if trouble is None:
            self._troubled_s = None
        elif self._troubled_s is None:
            self._troubled_s = now_s
        elif now_s - self._troubled_s >= self._patience_s:
            return f"for {self._patience_s:g} s or longer: {trouble}"
        return None

    def _turn(self) -> None:
        self._turned = True


class Notifier:
    """Sends what systemd asked to be told.

    Args:
        environment: holds NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID as systemd sets them, or not.
        status: one line for `systemctl status`; called from the notifier's thread.

    Attributes:
        wanted: whether anybody listens.
    """

    def __init__(self, environment: Mapping[str, str], status: Callable[[], str]) -> None:
        self._address = _address(environment)
        self.wanted = self._address is not None
        watchdog_s = _watchdog_s(environment)
        self._watched = watchdog_s is not None
        self._period_s = STATUS_S if watchdog_s is None else min(max(SHORTEST_S, watchdog_s / 2), LONGEST_S)
        self._status = status
        self._told = ""
        self._trouble: Optional[str] = None
        self._failure: Optional[str] = None
        self._stopping = threading.Event()
        self._closed = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def start(self, liveness: Liveness) -> None:
        """The service is ready: say so where it is wanted, and go on saying that work goes on."""
        if self.wanted:
            self._thread = threading.Thread(target=self._run, args=(liveness,), name="wenet-notify", daemon=True)
            self._thread.start()

    def stopping(self) -> None:
        """The service has begun to stop; may be called again."""
        self._stopping.set()

    def close(self) -> None:
        """End the thread; a service that was ready and does not stop yet is stopping now."""
        self._stopping.set()
        self._closed.set()
        if self._thread is not None:
            self._thread.join(CLOSING_S)

    def _run(self, liveness: Liveness) -> None:
        self._send(["READY=1", *self._news()])
        wait_s = self._period_s
        while not self._stopping.wait(wait_s):
            wait_s = self.beat(liveness)
        self._send(["STOPPING=1", *self._news()])
        while not self._closed.wait(wait_s):  # a drain may take longer than somebody waits for a sign of life
            wait_s = self.beat(liveness)

    def beat(self, liveness: Liveness) -> float:
        """Give a sign of life if there is life; returns the seconds to the next."""
        trouble = liveness.trouble()
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble is None:
                _LOG.warning("work goes on again")
            else:
                _LOG.error("no sign of life is given to systemd: %s", trouble)
        life = ["WATCHDOG=1"] if self._watched and trouble is None else []
        self._send([*life, *self._news()])
        # What stood still for a moment is seen to move again before systemd's time is up.
        return self._period_s if trouble is None else self._period_s / 4

    def _news(self) -> List[str]:
        """The line of state, if it is a new one."""
        told, self._told = self._told, self._trouble or ("draining" if self._stopping.is_set() else self._status())
        return [] if self._told == told else [f"STATUS={self._told}"]

    def _send(self, lines: List[str]) -> None:
        if not lines or self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_S)
                sender.sendto("\n".join(lines).encode(), self._address)
            self._failure = None
        except OSError as error:  # nobody is there, or nobody reads
            failure = str(error)
            if failure != self._failure:
                _LOG.warning("NOTIFY_SOCKET cannot be told anything (%s): serving goes on", failure)
            self._failure = failure


def status_of(runtime: Runtime, log: DecisionLog, *, simulated: bool) -> str:
    """The mode that answered last, and its 95th percentile in the latest decisions: `mode m3 p95 31.4 ms`."""
    mode_id = runtime.active
    took_ms = sorted(
        one.measured_ms
        for one in log.latest(SHOWN_ANSWERS)
        if one.mode_id == mode_id and one.measured_ms is not None and math.isfinite(one.measured_ms)
    )
    p95 = f"mode {mode_id} p95 {took_ms[math.ceil(0.95 * len(took_ms)) - 1]:.1f} ms" if took_ms else "no answer yet"
    return f"simulated, {p95}" if simulated else p95


def _address(environment: Mapping[str, str]) -> Optional[str]:
    """Where to send; None if nobody listens."""
    given = environment.get("NOTIFY_SOCKET", "")
    if given.startswith("@"):  # a name without a file
        return "\0" + given[1:]
    if given.startswith("/"):
        return given
    if given:
        _LOG.warning("NOTIFY_SOCKET is neither a path nor an abstract name (@…): systemd is told nothing")
    return None


def _watchdog_s(environment: Mapping[str, str]) -> Optional[float]:
    """How long systemd waits for a sign of life of this process; None if it does not."""
    given, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not given or (process and process != str(os.getpid())):
        return None
    if re.fullmatch("[0-9]{1,20}", given) is None or int(given) == 0:
        _LOG.warning("WATCHDOG_USEC is no number of microseconds: no sign of life is given")
        return None
    return int(given) / 1e6
