"""How far something is and how long the rest may take, on stderr: a bar on a terminal, single lines elsewhere.

What is shown is told as (what, done, total), e.g. ("building m2", 2, 5), before each step and perhaps at the end.
"""

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Callable, Iterator, Optional, Protocol

from wenet_runtime.cli.ends import say

if TYPE_CHECKING:  # loads only where there is a terminal
    from rich.console import Console

TOLD_EVERY_S = 5.0  # between single lines
DRAWN_EVERY_S = 0.25  # drawing takes time from what may be measured at that moment
SHORT = 0.1  # of the longest step: quicker ones found their work done already, and foretell nothing

Clock = Callable[[], float]


class Pace:
    """Foretells from the steps that are finished how long the rest takes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._what, self._done, self._total = "", 0, -1
        self._changed_s = 0.0
        self._longest_s = self._sum_s = 0.0
        self._counted = 0

    def tell(self, what: str, done: int, total: int) -> bool:
        """Take note of where things are; says whether this is the first of something else."""
        now_s = self._clock()
        begins = total != self._total or done < self._done or what.split(" ")[0] != self._what.split(" ")[0]
        if begins:
            self._longest_s = self._sum_s = 0.0
            self._counted = 0
        elif done > self._done:
            self._count((now_s - self._changed_s) / (done - self._done), done - self._done)
        if begins or done > self._done:
            self._changed_s = now_s
        self._what, self._done, self._total = what, done, total
        return begins

    def _count(self, step_s: float, steps: int) -> None:
        if self._longest_s < SHORT * step_s:
            self._sum_s, self._counted = 0.0, 0
        self._longest_s = max(self._longest_s, step_s)
        if step_s >= SHORT * self._longest_s:
            self._sum_s += step_s * steps
            self._counted += steps

    @property
    def left_s(self) -> Optional[float]:
        """What it will still take; None before a step is finished."""
        if not self._counted:
            return None
        step_s, steps = self._sum_s / self._counted, self._total - self._done
        if not steps:
            return 0.0
        return step_s * (steps - 1) + max(0.0, step_s - (self._clock() - self._changed_s))


def left(seconds: Optional[float]) -> str:
    """In words, to what matters: "3 min 20 s left"; nothing where it is unknown or over."""
    if seconds is None or seconds < 0.5:
        return ""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min left"
    return f"{minutes} min {rest} s left" if minutes else f"{rest} s left"


class Shown(Protocol):
    """What shows progress until it is closed."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show where things are."""
        ...

    def close(self) -> None:
        """Show nothing any more."""
        ...


class Lines:
    """Single lines for logs: the first and the last of each thing, and one now and then between."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._pace = Pace(clock)
        self._told_s = -TOLD_EVERY_S

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say it, if it is time."""
        begins = self._pace.tell(what, done, total)
        if begins or done == total or self._clock() - self._told_s >= TOLD_EVERY_S:
            self._told_s = self._clock()
            say(", ".join(filter(None, (f"{what} {done}/{total}", left(self._pace.left_s)))))

    def close(self) -> None:
        """Nothing is held."""


class Bar:
    """A bar for each thing, with what it has taken and what is left.

    Args:
        ticking: draw once a second also while nothing is told; not where something is being measured.
        console: where to; stderr if not given.
        clock: monotonic seconds.
    """

    def __init__(self, *, ticking: bool, console: "Optional[Console]" = None, clock: Clock = time.monotonic) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.text import Text

        pace = self._pace = Pace(clock)

        class Left(TextColumn):
            """Counts down between steps; only the last bar is under way."""

            def render(self, task: object) -> Text:
                return Text("" if getattr(task, "finished", False) else left(pace.left_s))

        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            Left(""),
            console=console or Console(stderr=True),
            auto_refresh=ticking,
            refresh_per_second=1,
            get_time=clock,
        )
        self._clock = clock
        self._drawn_s = -DRAWN_EVERY_S
        self._bars.start()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Draw it, if it is time."""
        begins = self._pace.tell(what, done, total)
        if begins:
            for one in self._bars.tasks:
                self._bars.update(one.id, completed=one.total)
            self._bars.add_task(what, total=total)
        self._bars.update(self._bars.tasks[-1].id, description=what, completed=done)
        if begins or done == total or self._clock() - self._drawn_s >= DRAWN_EVERY_S:
            self._drawn_s = self._clock()
            self._bars.refresh()

    def close(self) -> None:
        """Leave what is drawn and go on below it."""
        self._bars.stop()


@contextlib.contextmanager
def progress_shown(*, ticking: bool = False) -> Iterator[Shown]:
    """Shows progress to the end of the block; see `Bar` for `ticking`."""
    on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    shown: Shown = Bar(ticking=ticking) if on_terminal else Lines()
    try:
        yield shown
    finally:
        shown.close()
