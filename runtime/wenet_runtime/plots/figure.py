"""How every picture looks and is saved: matplotlib without a display, one palette, PNG + SVG + CSV."""

import contextlib
import csv
import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from wenet_runtime.errors import SettingsError
from wenet_runtime.files import write_atomic
from wenet_runtime.plots.story import EXPIRED, FAILED, LATE, REFUSED, WITHIN

DPI = 150
NOTE_LETTERS_AN_INCH = 17
GREY = "#8c8c8c"
# Okabe and Ito's colours, which people see apart whatever colours they see.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
OUTCOME_COLOURS = {WITHIN: "#0072b2", LATE: "#e69f00", REFUSED: "#bdbdbd", EXPIRED: "#cc79a7", FAILED: "#000000"}
MARKERS = "osD^vPX*<>"
DARKEST, LIGHTEST = 0.0, 0.88  # of viridis: its yellow cannot be seen on white

_LOOK: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "wenet",
}


class NothingToDraw(Exception):
    """What a picture shows is not in what was given; says what is missing."""


@dataclass(frozen=True)
class Picture:
    """A drawn picture and the numbers in it.

    Attributes:
        figure: matplotlib's.
        columns: names of the numbers, with their units.
        rows: one for each thing that is shown; None is left empty.
    """

    figure: Any
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@contextlib.contextmanager
def look() -> Iterator[None]:
    """Within it everything is drawn and saved in one look. Raises `SettingsError` if matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise SettingsError(
            "pictures need matplotlib, which is not installed: pip install 'wenet-runtime[plot]'"
        ) from None
    with mpl.rc_context(_LOOK):
        yield


def blank(panels: int = 1, *, stacked: bool = False, size: Tuple[float, float] = (7.2, 4.0)) -> Tuple[Any, List[Any]]:
    """A figure and its axes.

    Args:
        panels: how many.
        stacked: above each other with one horizontal axis; else side by side.
        size: inches.
    """
    from matplotlib.figure import Figure  # without pyplot: no display, no state that is left behind

    figure = Figure(figsize=size, layout="constrained")
    rows, columns = (panels, 1) if stacked else (1, panels)
    axes = figure.subplots(rows, columns, sharex=stacked, squeeze=False)
    return figure, [one for row in axes for one in row]


def mode_colours(mode_ids: Sequence[str]) -> Dict[str, Any]:
    """A colour for each mode, dark for the most accurate, which comes first."""
    import matplotlib as mpl

    palette = mpl.colormaps["viridis"]
    step = (LIGHTEST - DARKEST) / max(1, len(mode_ids) - 1)
    return {mode: palette(DARKEST + step * number) for number, mode in enumerate(mode_ids)}


def legend(axis: Any, *, columns: int = 1, title: str = "") -> None:
    """A legend to the right of an axis, where it hides nothing."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), ncols=columns, title=title or None, alignment="left")


def plain_numbers(axis: Any) -> None:
    """Numbers as people write them on a logarithmic axis: 20, not 2 × 10¹."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def percents(axis: Any) -> None:
    """Shares of 1 as percents."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, symbol="%"))


def save(picture: Picture, *, folder: Path, name: str, notes: Sequence[str]) -> List[Path]:
    """Write NAME.png, NAME.svg and NAME.csv, with the notes below the picture. Raises `OSError`."""
    written = []
    if notes:
        width = int(NOTE_LETTERS_AN_INCH * picture.figure.get_figwidth())
        text = textwrap.fill("; ".join(dict.fromkeys(notes)), width)
        picture.figure.supxlabel(text, fontsize=7, color=GREY, x=0.01, ha="left")
    for kind, more in (("png", {"dpi": DPI}), ("svg", {"metadata": {"Date": None}})):
        data = io.BytesIO()
        picture.figure.savefig(data, format=kind, **more)
        written.append(folder / f"{name}.{kind}")
        write_atomic(written[-1], data.getvalue())
    numbers = io.StringIO()
    table = csv.writer(numbers, lineterminator="\n")
    table.writerow(picture.columns)
    table.writerows([["" if one is None else _cell(one) for one in row] for row in picture.rows])
    written.append(folder / f"{name}.csv")
    write_atomic(written[-1], numbers.getvalue().encode())
    return written


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
