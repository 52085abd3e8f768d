"""Runs what takes some milliseconds to plan beside the server's and the engine's threads, which have none to spare."""

import logging
import threading
from typing import Callable, Optional, Set

Work = Callable[[], None]

CLOSING_S = 5.0
MAX_FAILURES = 16

_LOG = logging.getLogger(__name__)


class Planner:
    """One thread, and one piece of work that waits: the newest, because a newer plan makes an older one useless.

    So plans are made one after the other, in the order in which they were asked for. No failure ends it; each kind is
    logged once. Where the system gives no thread nothing is planned, which is said once.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next: Optional[Work] = None
        self._closing = False
        self._failures: Set[str] = set()
        self._thread: Optional[threading.Thread] = threading.Thread(target=self._run, name="wenet-planner", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system's limit of threads
            _LOG.warning("nothing is planned ahead, requests are served without: %s", error)
            self._thread = None

    def plan(self, work: Work) -> None:
        """Have this run soon, instead of what was asked for before and has not begun. Returns at once."""
        if self._thread is None:
            return
        with self._changed:
            self._next = work
            self._changed.notify()

    def close(self, timeout_s: float = CLOSING_S) -> None:
        """Plan no more; waits for the present plan."""
        with self._changed:
            self._closing = True
            self._next = None
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._next is None and not self._closing:
                    self._changed.wait()
                if self._closing or self._next is None:
                    return
                work, self._next = self._next, None
            try:
                work()
            except Exception as error:  # noqa: BLE001 - a plan that fails must not end those after it
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        kind = f"{type(error).__name__}: {error}"
        if kind not in self._failures and len(self._failures) < MAX_FAILURES:
            self._failures.add(kind)
            _LOG.warning("a plan failed, the one before it stays: %s", kind, exc_info=error)
