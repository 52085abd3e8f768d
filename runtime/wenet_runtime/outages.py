"""Takes modes out that fail, tries them again with the golden inputs, and brings back those that answer right.

All of it happens on the engine's thread, because an engine is used by one thread.
"""

import logging
from typing import Iterable, Optional

from wenet_runtime.errors import NotResident
from wenet_runtime.faults import KINDS, Faults, ModeFault
from wenet_runtime.pool import Pool

_LOG = logging.getLogger(__name__)


class Outages:
    """The failing modes of a pool.

    Args:
        pool: whose modes.
        served: ids of the modes that can be chosen.

    Attributes:
        faults: counts them.
        last: the one mode left in service, if it fails: it is never taken out, because some answers may be right.
    """

    def __init__(self, pool: Pool, served: Iterable[str]) -> None:
        self.faults = Faults()
        self.last: Optional[str] = None
        self._pool = pool
        self._served = list(served)

    def answered(self, mode_id: str) -> None:
        """A mode has answered a request."""
        self.faults.answered(mode_id)
        if mode_id == self.last:
            self.last = None

    def blame(self, fault: ModeFault, now_s: float) -> None:
        """A mode has failed: take it out if that is enough."""
        mode_id = fault.mode_id
        cause = fault.__cause__
        _LOG.warning("%s", fault, exc_info=None if cause is None else (type(cause), cause, cause.__traceback__))
        if not self.faults.failed(mode_id, fault.kind) or mode_id in self._pool.residency.out:
            return
        self.faults.rest(mode_id, now_s)
        if any(one != mode_id and one not in self._pool.residency.out for one in self._served):
            self._suspend(mode_id, KINDS[fault.kind])
        else:
            self.last = mode_id
            _LOG.error("mode '%s' fails and is the last in service: it stays, and nothing is ready", mode_id)

    def due(self, now_s: float) -> bool:
        """Whether a mode is to be tried again."""
        return self.faults.due(now_s) is not None

    def mend(self, now_s: float) -> bool:
        """Try a mode again that is due; False if none is."""
        mode_id = self.faults.due(now_s)
        if mode_id is None:
            return False
        try:
            self._pool.check(mode_id)
        except NotResident:
            pass  # it is checked when it is loaded
        except Exception as error:  # noqa: BLE001 - an engine may raise anything
            _LOG.warning("mode '%s' was tried again and still fails: %s", mode_id, error)
            self.faults.rest(mode_id, now_s)
            return True
        self._bring_back(mode_id)
        return True

    def _bring_back(self, mode_id: str) -> None:
        self.faults.back(mode_id)
        self._pool.restore(mode_id)
        _LOG.warning("mode '%s' answers its golden inputs right: it is in service again", mode_id)
        if self.last not in (None, mode_id):
            assert self.last is not None
            self._suspend(self.last, KINDS["error"])
        self.last = None

    def _suspend(self, mode_id: str, reason: str) -> None:
        _LOG.error("mode '%s' is out of service: %s", mode_id, reason)
        self._pool.suspend(mode_id, f"{reason}; it is tried again")
