"""Log lines: their two forms, and how they leave the process without anybody waiting for whoever reads them."""

import json
import logging
import os
import queue
import select
import threading
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Mapping, Union

MAX_WAITING = 1000  # lines; each a few hundred bytes
FLUSH_S = 1.0


class TextLines(logging.Formatter):
    """One line for a person, with a record's `fields` behind its message."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without an exception's text."""
        told = (f"{name}={_plain(value)}" for name, value in fields_of(record).items())
        return " ".join((super().formatMessage(record), *told))


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, a record's `fields`, and an exception's text."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = datetime.fromtimestamp(record.created, timezone.utc)
        members: Dict[str, Any] = {
            "time": when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return json.dumps(members, separators=(",", ":"), default=str)


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """What was logged with `extra={"fields": …}`."""
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def is_json(form: str, descriptor: int) -> bool:
    """Whether lines are JSON: `--log-format`'s `auto` is text on a terminal alone."""
    return form == "json" or (form == "auto" and not os.isatty(descriptor))


class Aside(logging.Handler):
    """Writes in a thread of its own. Lines for which there is no room are dropped and counted: nobody waits for a pipe.

    Args:
        descriptor: where to. Not a stream, whose lock that thread could hold when the process ends.
        limit: how many lines may wait.
        write: as `os.write`.
    """

    def __init__(
        self, descriptor: int, *, limit: int = MAX_WAITING, write: Callable[[int, bytes], int] = os.write
    ) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._write = write
        self._waiting: queue.Queue[Union[str, threading.Event]] = queue.Queue(limit)
        self._dropped = 0
        self._counting = threading.Lock()
        threading.Thread(target=self._run, name="wenet-logs", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put one line where it will be written."""
        try:
            self._waiting.put_nowait(self.format(record))
        except queue.Full:
            with self._counting:
                self._dropped += 1
        except Exception:  # noqa: BLE001 - logging's own rule: what cannot be formatted costs its line and no more
            self.handleError(record)

    def flush(self) -> None:
        """Wait until what was logged is written, or for a second where nobody reads."""
        written = threading.Event()
        try:
            self._waiting.put(written, timeout=FLUSH_S)
        except queue.Full:
            return
        written.wait(FLUSH_S)

    def _run(self) -> None:
        while True:
            waiting = self._waiting.get()
            if isinstance(waiting, threading.Event):
                waiting.set()
                continue
            self._put(waiting)
            with self._counting:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                text = f"{dropped} log lines were dropped: they are read too slowly"
                self._put(self.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)))

    def _put(self, line: str) -> None:
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        try:
            while data:
                try:
                    data = data[self._write(self._descriptor, data) :]
                except BlockingIOError:  # somebody made it so; this thread may wait
                    select.select([], [self._descriptor], [])
        except OSError:  # whoever read has gone: there is nobody left to tell
            pass


def log_handler(form: str, descriptor: int) -> Aside:
    """What all logging goes through.

    Args:
        form: `auto`, `text` or `json`.
        descriptor: of the open file or terminal that lines are written to.
    """
    handler = Aside(descriptor)
    handler.setFormatter(formatter_of(form, descriptor))
    return handler


def formatter_of(form: str, descriptor: int) -> logging.Formatter:
    """What makes lines of that form; arguments as for `log_handler`."""
    return JsonLines() if is_json(form, descriptor) else TextLines()
