"""Fenced blocks of Markdown, and the mark before each that says what a test does with it.

A mark is an HTML comment on the line before the fence, which no reader sees:

    <!-- run -->             the commands end with 0
    <!-- run: exits 4 -->    with 4
    <!-- serve -->           the last command is a daemon that the page's next blocks ask; it ends with a SIGTERM
    <!-- output -->          what the block before prints has these lines, with other figures
    <!-- not run: why -->    nothing is done with it
"""

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"( *)```(\w*)")
MARK = re.compile(r" *<!-- (run|serve|output|not run)(?:: (.+))? -->")
# Words that a figure decides: another machine, or another second, has the other.
EITHER = (("fits", "degraded", "only-mode"), ("true", "false"), ("NOT met", "met"))
_FIGURE = re.compile(r"[0-9a-f]{12,}|\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: the file it stands in.
        line: number of its fence.
        language: of the fence, "" without one.
        text: its lines, without the fence's indentation.
        mark, why: what its comment says; "" without one.
    """

    page: Path
    line: int
    language: str
    text: str
    mark: str
    why: str

    @property
    def place(self) -> str:
        """For a message."""
        return f"{self.page.parent.name}/{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        fence = FENCE.fullmatch(lines[number])
        number += 1
        if fence is None:
            continue
        begin, indent = number, len(fence.group(1))
        while lines[number].strip() != "```":
            number += 1
        text = "".join(f"{line[indent:]}\n" for line in lines[begin:number])
        mark = MARK.fullmatch(lines[begin - 2]) if begin > 1 else None
        kind, why = (mark.group(1), mark.group(2) or "") if mark else ("", "")
        found.append(Block(page, begin, fence.group(2), text, kind, why))
        number += 1
    return found


def shape(line: str) -> "re.Pattern[str]":
    """What a printed line must look like: the same words, any figures and distances; `…` stands for anything."""
    pattern = ""
    for piece in re.split(r"(…)", spaced(line)):
        if piece == "…":
            pattern += ".*"
            continue
        literal = _FIGURE.sub(_hidden, piece)
        escaped = re.escape(literal).replace(re.escape("\0"), r"[0-9a-f.]+").replace("\0", r"[0-9a-f.]+")
        for words in EITHER:
            several = "|".join(re.escape(one) for one in words)
            escaped = re.sub(rf"(?<!\w)(?:{several})(?!\w)", lambda _, several=several: f"(?:{several})", escaped)
        pattern += escaped
    return re.compile(pattern)


def _hidden(figure: "re.Match[str]") -> str:
    """A mark in place of a figure, which may be another one. A status may not."""
    before, after = figure.string[: figure.start()], figure.string[figure.end() :]
    status = before.endswith(("HTTP/", "HTTP/1.1 ", '"status":')) or (not before and after.startswith(" http"))
    return figure.group() if status else "\0"


def spaced(line: str) -> str:
    """A line with one blank between its words: columns are as wide as the widest value."""
    return " ".join(line.split())


def missing_line(expected: str, printed: str) -> str | None:
    """The first expected line that was not printed, in order; None if all were."""
    rest = (spaced(line) for line in printed.splitlines())
    for line in expected.splitlines():
        if line.strip(" …") and not any(shape(line).search(one) for one in rest):
            return line
    return None
