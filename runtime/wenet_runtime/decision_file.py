"""The file of decisions: JSON lines that grow and rotate, and their reading."""

import contextlib
import errno
import fcntl
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
    """A file of lines, only its owner's and of one writer. At `max_bytes` it becomes `<name>.1`, in the place of the
    one before. Whoever moves it away, removes or replaces it finds the next lines in a new one.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._descriptor: Optional[int] = None

    def open(self) -> None:
        """Open it, unless it is open.

        Raises:
            OSError: it cannot be, is no ordinary file, or another program writes to it.
        """
        if self._descriptor is None:
            self._descriptor = self._opened()

    def write(self, data: bytes) -> None:
        """Append whole lines. Raises `OSError`."""
        state = self._followed()
        if state.st_size > 0 and state.st_size + len(data) > self._max_bytes:
            os.replace(str(self._path), f"{self._path}.1")  # noqa: PTH105
            self.close()
            self.open()
        descriptor = self._descriptor
        assert descriptor is not None
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]

    def close(self) -> None:
        """Close it; writing opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # a full disk was told when it was written
                os.close(descriptor)

    def _followed(self) -> os.stat_result:
        """Make sure that what is open is what lies at the path now."""
        if self._descriptor is not None:
            state = os.fstat(self._descriptor)
            with contextlib.suppress(FileNotFoundError):
                there = os.lstat(self._path)
                if (there.st_dev, there.st_ino) == (state.st_dev, state.st_ino):
                    return state
            self.close()
        self.open()
        assert self._descriptor is not None
        return os.fstat(self._descriptor)

    def _opened(self) -> int:
        # Not through a link, which could lead anywhere; not waiting, as opening a pipe would.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(str(self._path), flags, 0o600)
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise OSError(errno.EINVAL, "it is no ordinary file")
            _claim(descriptor)
            if stat.S_IMODE(state.st_mode) & 0o077:
                os.fchmod(descriptor, 0o600)
            if state.st_size > 0 and os.pread(descriptor, 1, state.st_size - 1) != b"\n":
                os.write(descriptor, b"\n")  # the half line of a daemon that was killed
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _claim(descriptor: int) -> None:
    """Keep other writers out until the file is closed, where its file system can do that."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "another program writes to it: give each server a file of its own") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
