"""The file of decisions: JSON lines that grow and rotate, and their reading."""

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Iterator, List, Optional, Union

from wenet_runtime.decision import Decision, decision_of

MAX_LINE = 64 << 10  # a decision takes about half a kilobyte
NAMED_BAD = 5  # how many bad lines are told one by one


class Reading:
    """Iterates over a log, oldest first, and tells what could not be read. Only the file itself raises, `OSError`.

    Attributes:
        bad: lines that are no decision.
        named: the first of them, e.g. "line 7 is no JSON".
        unfinished: the last line was still being written, and is left out.
    """

    def __init__(self, source: Union[Path, BinaryIO]) -> None:
        self._source = source
        self.bad = 0
        self.named: List[str] = []
        self.unfinished = False

    def __iter__(self) -> Iterator[Decision]:
        if isinstance(self._source, Path):
            with self._source.open("rb") as file:
                yield from self._decisions(file)
        else:
            yield from self._decisions(self._source)

    def _decisions(self, file: BinaryIO) -> Iterator[Decision]:
        number = 0
        for line in iter(lambda: file.readline(MAX_LINE), b""):
            number += 1
            if not line.endswith(b"\n") and len(line) == MAX_LINE:
                self._note(number, f"is longer than {MAX_LINE} bytes")
                for rest in iter(lambda: file.readline(MAX_LINE), b""):  # its end is no line of its own
                    if rest.endswith(b"\n"):
                        break
                continue
            if not line.strip():
                continue
            try:
                decision = decision_of(line)
            except ValueError as error:
                if line.endswith(b"\n"):
                    self._note(number, str(error))
                else:
                    self.unfinished = True
                continue
            yield decision

    def _note(self, number: int, why: str) -> None:
        self.bad += 1
        if len(self.named) < NAMED_BAD:
            self.named.append(f"line {number} {why}")


def read_log(source: Union[Path, BinaryIO]) -> Reading:
    """Read a log, also one that is being written. Lines that are no decision are counted and named, never raised."""
    return Reading(source)


class DecisionFile:
    """A file of lines, only its owner's. At `max_bytes` it becomes `<name>.1`, in the place of the one before.

    Raises:
        OSError: it cannot be opened or written, or is no ordinary file.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._descriptor: Optional[int] = self._opened()

    def write(self, data: bytes) -> None:
        """Append whole lines."""
        if self._descriptor is None:
            self._descriptor = self._opened()
        state = os.fstat(self._descriptor)
        if state.st_nlink == 0:  # someone removed it: what is written there nobody will read
            self._again()
        elif state.st_size > 0 and state.st_size + len(data) > self._max_bytes:
            os.replace(str(self._path), f"{self._path}.1")  # noqa: PTH105
            self._again()
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def close(self) -> None:
        """Close it; writing opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # a full disk was told when it was written
                os.close(descriptor)

    def _again(self) -> None:
        self.close()
        self._descriptor = self._opened()

    def _opened(self) -> int:
        # Not through a link, which could lead anywhere; not waiting, as opening a pipe would.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(str(self._path), flags, 0o600)
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise OSError(errno.EINVAL, "it is no ordinary file")
            if stat.S_IMODE(state.st_mode) & 0o077:
                os.fchmod(descriptor, 0o600)
            if state.st_size > 0 and os.pread(descriptor, 1, state.st_size - 1) != b"\n":
                os.write(descriptor, b"\n")  # the half line of a daemon that was killed
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
