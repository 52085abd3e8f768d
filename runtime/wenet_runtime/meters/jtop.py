"""Watts from jetson-stats' service, for those who run it anyway. Never chosen unless named, never installed along.

jetson-stats is under the AGPL-3.0: a daemon that imports it and serves others over a network may have to offer them
the source of the whole. It also speaks pickle over its socket, so whoever owns that socket may run code in here.
The other meters read the same sensors without it.
"""

import time
from typing import Any, Callable, Dict, Optional

from wenet_runtime.errors import MeterError
from wenet_runtime.meters.rails import Total, rotated, whole_board
from wenet_runtime.meters.sampler import PolledMeter

INTERVAL_S = 0.5  # its service reads no faster
HOPELESS = 5  # readings in a row of which the labels cannot be right


class JtopMeter(PolledMeter):
    """Power of the whole board, by the rails that jetson-stats reads and our own rules for their total.

    Args:
        rail: the rail or rails ("A+B") that are the whole board, if not what its kind says.
        interval_s: time between readings.
        clock: the monotonic clock.

    Raises:
        MeterError: jetson-stats is not installed, its service does not answer, or its rails are not known to be the
            whole board; says what to do.
    """

    def __init__(
        self,
        rail: Optional[str] = None,
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asked = rail
        self._doubts = 0  # in a row
        self._client = _started(interval_s)
        try:
            total = self._total()
            if total is None:
                raise MeterError(self._lacking())
        except Exception as error:
            self._client.close()
            if isinstance(error, MeterError):
                raise
            raise MeterError(f"jtop.service gives no rails ({error})") from error
        name = "+".join(total.rails)
        super().__init__(
            f"rail:{name}",
            name,
            self._watts,
            interval_s=interval_s,
            # A reading is as old as its arrival: what was waited for it is no part of it.
            record=lambda trace, at_s, watts: trace.add(clock(), watts),
            clock=clock,
        )

    def close(self) -> None:
        """Leave the service."""
        if not self._closing.is_set():
            self._closing.set()
            self._client.close()  # before the thread is waited for: it ends a wait for the next reading
        super().close()

    def _watts(self) -> Optional[float]:
        total = self._total()
        if total is not None:
            self._doubts = 0
            return total.mw / 1e3
        self._doubts += 1
        if self._doubts >= HOPELESS:
            raise MeterError(self._lacking())
        return None

    def _total(self) -> Optional[Total]:
        if not self._client.ok():  # waits for the next reading
            raise MeterError("jtop.service has ended: start it again, and then this daemon")
        return whole_board(self._rails_mw(), self._asked)

    def _rails_mw(self) -> Dict[str, int]:
        return {str(name): int(one["power"]) for name, one in self._client.power["rail"].items()}

    def _lacking(self) -> str:
        rails_mw = self._rails_mw()
        labels = rotated(rails_mw) if self._asked is None else None
        there = ", ".join(sorted(rails_mw)) or "none"
        return labels or f"the whole board is not among jtop's rails ({there}): name one with --power-rail"


def _started(interval_s: float) -> Any:
    try:
        from jtop import jtop
    except ImportError:
        raise MeterError(
            "jetson-stats is not installed: see what its licence means, then pip install 'wenet-runtime[jtop]'"
        ) from None
    client = jtop(interval=interval_s)
    try:
        client.start()
    except Exception as error:  # noqa: BLE001 - its own kind of error, and whatever socket and pickle raise
        raise MeterError(
            f"jtop.service does not answer ({error}): `sudo systemctl start jtop`, be in the group jtop, install the "
            "same version of jetson-stats as the service's, and in a container mount /run/jtop.sock"
        ) from None
    return client
