"""A child process that is read by line: bounded lines, a time limit on waiting, and nothing left when it ends."""

import os
import select
import subprocess
from typing import List, Optional, Sequence

LONGEST_LINE = 8192  # bytes; the longest line recorded has 523
AT_ONCE = 65536
GRACE_S = 1.0


class LineChild:
    """Runs a command in the foreground and reads what it prints. For one thread.

    Its standard error is read along: what a child says before it dies is why. A child that is left behind by a
    killed parent is ended by SIGPIPE when it next prints, because nobody holds the other end any more.

    Args:
        command: the program and its arguments.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        # A session of its own: an interrupt from the terminal is for the parent, which then ends the child.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._begun = b""  # of a line that has not ended yet
        self._too_long = False

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def lines(self, timeout_s: float) -> Optional[List[str]]:
        """The lines that ended since the last call, without their ends; after `timeout_s` maybe none.

        Returns None when the child will print no more. A line that was cut by its end, or is longer than any line
        can be, is left out.
        """
        if not self._poll.poll(max(0.0, timeout_s) * 1e3):
            return []
        try:
            received = os.read(self._pipe.fileno(), AT_ONCE)
        except OSError:
            return None  # what cannot be read has ended, too
        if not received:
            return None
        *ended, self._begun = (self._begun + received).split(b"\n")
        if ended and self._too_long:
            del ended[0]  # only the rest of one
            self._too_long = False
        if len(self._begun) > LONGEST_LINE:
            self._begun, self._too_long = b"", True
        return [line.decode("ascii", "replace") for line in ended if len(line) <= LONGEST_LINE]

    def end(self) -> int:
        """End the child if it still runs, by force if it will not go, and give back what it held; its exit code."""
        self._process.terminate()
        try:
            return self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._pipe.close()
