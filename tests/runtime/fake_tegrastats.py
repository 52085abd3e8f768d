"""A stand-in for NVIDIA's `tegrastats`, not the program: it replays a log line by line and fails as it is told to.

Runs on any Python without packages. Line number n comes n intervals after the first, so that a replay takes exactly
its nominal time; the real program's period is a little longer than what it is asked for.
"""

import argparse
import itertools
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Iterator, List, Optional, Sequence

RAIL = re.compile(r"(?<!\S)[A-Za-z]\w*\s+\d+(?:mW)?/\d+(?:mW)?(?:/\d+(?:mW)?)?(?!\S)")
JUNK = b"\x00\xff\xfe \x1b[31m 99999999999999999999/1 \xf0\x9f CPU [[ @@"


def installed(folder: Path, *words: object, later: Optional[Sequence[object]] = None) -> str:
    """The path of a program in `folder` that runs this one with these words, and with `later` from its second life on.

    It keeps the meaning of `--interval`, which its caller adds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program, lived = folder / "tegrastats", folder / "lived"

    def line(these: Sequence[object]) -> str:
        quoted = " ".join(f"'{word}'" for word in these)
        return f"exec '{sys.executable}' -S -E '{Path(__file__).resolve()}' {quoted} \"$@\"\n"

    lines = ["#!/bin/sh\n"]
    if later is not None:
        lines.append(f"if [ -e '{lived}' ]\nthen {line(later)}fi\n: > '{lived}'\n")
    program.write_text("".join([*lines, line(words)]))
    program.chmod(0o755)
    return str(program)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log", type=Path, required=True, help="the lines, replayed round and round")
    parser.add_argument("--interval", type=float, default=1000.0, help="ms between lines")
    parser.add_argument("--die-after", type=int, help="end after so many lines")
    parser.add_argument("--exit-code", type=int, default=0, help="how it then ends")
    parser.add_argument("--signal", type=int, help="end by this signal instead")
    parser.add_argument("--cut-last", action="store_true", help="the last line before that is cut and has no end")
    parser.add_argument("--stall-after", type=int, help="print nothing more after so many lines, and live on")
    parser.add_argument("--no-rails", action="store_true", help="leave the power rails out, as without permission")
    parser.add_argument("--junk", action="store_true", help="a line that is none before each line")
    parser.add_argument("--endless-line", action="store_true", help="print for ever without ending a line")
    parser.add_argument("--hold", type=Path, help="print nothing while this file is there")
    parser.add_argument("--ignore-term", action="store_true", help="do not end when asked to")
    return parser.parse_args()


def _lines(options: argparse.Namespace) -> Iterator[bytes]:
    kept: List[str] = options.log.read_text().splitlines()
    if options.no_rails:
        kept = [RAIL.sub("", line) for line in kept]
    junk = JUNK + b"\n" if options.junk else b""
    for line in itertools.cycle(kept):
        yield junk + line.encode() + b"\n"


def main() -> int:
    """Replay until told to end, or until nobody reads."""
    options = _options()
    if options.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as any program in C
    while options.hold is not None and options.hold.exists():
        time.sleep(0.01)
    begun_s = time.monotonic()
    for number, line in enumerate(_lines(options)):
        wait_s = begun_s + number * options.interval / 1e3 - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        if number == options.stall_after:
            while True:
                time.sleep(3600)
        last = options.die_after is not None and number + 1 >= options.die_after
        if options.endless_line or (last and options.cut_last):
            line = line[: len(line) * 2 // 3].replace(b"\n", b" ")
        os.write(1, line)
        if last:
            if options.signal is not None:
                os.kill(os.getpid(), options.signal)
            return int(options.exit_code)
    raise AssertionError("the log has no lines")


if __name__ == "__main__":
    sys.exit(main())
