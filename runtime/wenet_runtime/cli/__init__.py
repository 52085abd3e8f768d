"""`wenet-runtime`: the only place that exits, prints and configures logging."""

import errno
import io
import os
import sys

from wenet_runtime import __version__


def main() -> None:
    """Entry point of `wenet-runtime`. Its version is told before anything is loaded, which takes longer than that."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to end
    try:
        try:
            _run()
        finally:
            _flush()
    except OSError as error:
        try:
            print(flush=True)  # if it was stdout, it fails again; else an empty line stands before the traceback
        except OSError:
            _end_unread(error)
        raise


def _run() -> None:
    if sys.argv[1:] == ["--version"]:
        print(f"wenet-runtime {__version__}")
        return
    from wenet_runtime.cli.commands import app

    app()


def _flush() -> None:
    if sys.stdout is not None:  # it is None where it was closed before the start
        sys.stdout.flush()


def _end_unread(error: OSError) -> None:
    """Exit with 1 as stdout takes nothing more; silently where whoever read it has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter writes what is left at its end
    if error.errno != errno.EPIPE:
        print(f"wenet-runtime: cannot write to stdout ({error.strerror}): make room there", file=sys.stderr)
    sys.exit(1)
