"""Progress bars: nothing longer than two seconds runs in silence on a terminal; elsewhere a line every ten seconds."""

import sys
from typing import Any, TextIO

from tqdm import tqdm as _tqdm  # type: ignore[import-untyped]  # it ships no types

__all__ = ["tqdm"]

TOLD_EVERY_S = 10.0  # between lines where there is no terminal


class _Lines:
    """Takes what a bar draws over itself, and passes it on as lines."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.encoding = getattr(file, "encoding", None)

    def write(self, text: str) -> None:
        line = text.strip()  # of carriage returns, and of the blanks that would wipe out the line before
        if line:
            self._file.write(f"{line}\n")

    def flush(self) -> None:
        self._file.flush()


class tqdm(_tqdm):  # type: ignore[misc]
    """tqdm's bar on a terminal. Elsewhere nothing for ten seconds, then a line every ten, and one at the end."""

    def __init__(self, *parts: Any, **how: Any) -> None:
        file = how.get("file") or sys.stderr
        self._drawn = file.isatty()
        if not self._drawn:
            how.update(file=_Lines(file), mininterval=TOLD_EVERY_S, delay=TOLD_EVERY_S)
        super().__init__(*parts, **how)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """What stands behind the bar; off a terminal it is told with the next line."""
        super().set_postfix_str(s, refresh=refresh and self._drawn)
