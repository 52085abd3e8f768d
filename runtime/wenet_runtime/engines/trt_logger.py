"""TensorRT's own messages: it says why something failed to its logger and not to who asked."""

import logging
import threading
from collections import deque
from functools import lru_cache
from typing import Any, Deque, Tuple

KEPT = 64  # errors; a failing build may log one for every tactic it tries
SHOWN = 3  # of them in an exception: the last ones, which name the cause

_LOG = logging.getLogger(__name__)


class Messages:
    """The latest errors of all that TensorRT does in this process, on any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._errors: Deque[Tuple[int, str]] = deque(maxlen=KEPT)

    def add(self, text: str) -> None:
        """Keep an error."""
        with self._lock:
            self._count += 1
            self._errors.append((self._count, text))

    def now(self) -> int:
        """Where the messages are at this moment; see `since`."""
        with self._lock:
            return self._count

    def since(self, moment: int) -> str:
        """The last errors after a moment as one line, with ": " before it; empty if there are none."""
        with self._lock:
            texts = [text for number, text in self._errors if number > moment]
        return f": {' | '.join(texts[-SHOWN:])}" if texts else ""


@lru_cache(maxsize=None)
def logger_of(trt: Any) -> Tuple[Any, Messages]:
    """The one logger for a TensorRT, and what it hears. TensorRT keeps to the first logger that a process gives it."""
    messages = Messages()
    errors = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

    class Listener(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in errors:
                messages.add(message)
                _LOG.warning("TensorRT: %s", message)
            elif severity == trt.ILogger.Severity.WARNING:
                _LOG.debug("TensorRT: %s", message)

    return Listener(), messages
