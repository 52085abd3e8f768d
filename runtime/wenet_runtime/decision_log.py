"""The decisions of a daemon: the latest in memory, and all of them in a file where one is asked for."""

import itertools
import logging
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Deque, List, Optional

from wenet_runtime.decision import Decision, Passed, line_of
from wenet_runtime.decision_file import DecisionFile, Reading, read_log

__all__ = ["Decision", "DecisionLog", "Passed", "Reading", "read_log"]

CAPACITY = 1000
MAX_BYTES = 16 << 20
MAX_WAITING = 8192
FLUSH_S = 0.25
# Written at once. Encoding these holds the interpreter for about a third of a millisecond; writing lets it go.
PIECE = 32
CLOSING_S = 5.0
RETRY_S = 10.0  # a full disk is seldom empty again at once

_LOG = logging.getLogger(__name__)


class DecisionLog:
    """Takes every decision; any thread may add. Adding never waits for a disk.

    A thread of its own writes the file. It looks for work by the clock rather than being woken: waking it would
    cost the engine's thread more than the decision itself.

    Args:
        capacity: how many decisions are kept in memory.
        path: the file of JSON lines; None keeps none. It is made with mode 0600.
        max_bytes: size at which the file becomes `<path>.1`; so twice this is taken on disk.
        max_waiting: decisions that may wait to be written; further ones are dropped and counted.
        flush_s: how often the file is written.
        retry_s: how long a file that failed is left alone; what is added meanwhile is dropped.

    Attributes:
        dropped: decisions that were to be written and were not.
        failure: why they are not written now, in a few words without the path; None once they are again. The
            program's log is told when that changes.

    Raises:
        ValueError: a limit below 1. A file that cannot be written does not raise.
    """

    def __init__(
        self,
        *,
        capacity: int = CAPACITY,
        path: Optional[Path] = None,
        max_bytes: int = MAX_BYTES,
        max_waiting: int = MAX_WAITING,
        flush_s: float = FLUSH_S,
        retry_s: float = RETRY_S,
    ) -> None:
        if min(capacity, max_bytes, max_waiting) < 1:
            raise ValueError(f"capacity {capacity}, max_bytes {max_bytes}, max_waiting {max_waiting}: give at least 1")
        self._path = path
        self._max_waiting = max_waiting
        self._flush_s = flush_s
        self._retry_s = retry_s
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._ring: Deque[Decision] = deque(maxlen=capacity)
        self._waiting: Deque[Decision] = deque()
        self._taking = False  # whether what is added now may still be written
        self._thread: Optional[threading.Thread] = None
        self._closing = threading.Event()
        self.dropped = 0
        self.failure: Optional[str] = None
        if path is not None:
            file = DecisionFile(path, max_bytes)
            self._attempt(file)
            self._thread = threading.Thread(target=self._write, args=(file,), name="wenet-decision-log", daemon=True)
            self._thread.start()

    def next_number(self) -> int:
        """The number of the next decision."""
        return next(self._numbers)

    def add(self, decision: Decision) -> None:
        """Keep a decision, and have it written."""
        with self._lock:
            self._ring.append(decision)
            if self._path is None:
                return
            if self._taking and len(self._waiting) < self._max_waiting:
                self._waiting.append(decision)
            else:
                self.dropped += 1

    def latest(self, count: Optional[int] = None) -> List[Decision]:
        """The latest decisions, the newest last: all that are kept, or `count` of them."""
        with self._lock:
            kept = list(self._ring)
        return kept if count is None else kept[max(0, len(kept) - count) :]

    def close(self, timeout_s: float = CLOSING_S) -> bool:
        """Write what waits and close the file; what is added later stays in memory only.

        Returns:
            Whether everything was written in time.
        """
        self._closing.set()
        if self._thread is None:
            return self._path is None
        self._thread.join(timeout_s)
        if self.dropped:
            _LOG.warning("%d decisions were not written to %s", self.dropped, self._path)
        return not self._thread.is_alive() and self.failure is None and self.dropped == 0

    def __enter__(self) -> "DecisionLog":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _write(self, file: DecisionFile) -> None:
        failed_s = time.monotonic()
        closing = False
        try:
            while not closing:
                closing = self._closing.wait(self._flush_s)
                if not self._taking and time.monotonic() < failed_s + self._retry_s:
                    continue
                if not self._attempt(file):
                    failed_s = time.monotonic()
        finally:
            self._stop_taking()
            file.close()

    def _attempt(self, file: DecisionFile) -> bool:
        """Open the file where it is not and write what waits; False if that failed."""
        try:
            file.open()
            with self._lock:
                self._taking = True
            self._write_waiting(file)
        except OSError as error:
            self._stop_taking()
            file.close()
            failure, self.failure = self.failure, error.strerror or str(error)
            if failure != self.failure:
                text = "decisions cannot be written to %s: %s; serving goes on, and the file is tried again"
                _LOG.error(text, self._path, self.failure)
            return False
        return True

    def _stop_taking(self) -> None:
        with self._lock:
            self._taking = False
            self.dropped += len(self._waiting)
            self._waiting.clear()

    def _write_waiting(self, file: DecisionFile) -> None:
        while True:
            with self._lock:
                piece = [self._waiting.popleft() for _ in range(min(PIECE, len(self._waiting)))]
            if not piece:
                return
            lines = []
            for decision in piece:
                try:
                    lines.append(line_of(decision))
                except (TypeError, ValueError):  # one that is not made of what it says must not end the log
                    _LOG.exception("decision %s cannot be written", decision.number)
            lost = len(piece)
            try:
                if lines:
                    file.write(b"".join(lines))
                    lost -= len(lines)
                    self._written()
            finally:
                with self._lock:
                    self.dropped += lost

    def _written(self) -> None:
        if self.failure is not None:  # being opened was no proof: a full disk lets it
            self.failure = None
            _LOG.warning("decisions are written to %s again; %d were not", self._path, self.dropped)
