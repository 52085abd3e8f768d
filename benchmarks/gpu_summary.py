"""What paired samples of modes say: which are faster or cheaper than the next denser one, and which are not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, exp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, reported
from benchmarks.gpu_energy import WINDOW_S, Energies

LEVEL = 0.95

Samples = Mapping[str, NDArray[Any]]  # by mode, densest first; sample k of each belongs to the same round


@dataclass(frozen=True)
class Ratio:
    """One mode's cost over another's, by pairs of samples of the same round.

    Attributes:
        median: of the pairs' ratios.
        low, high: an interval for the true median that needs no distribution; 0 and infinity for too few pairs.
        pairs: how many there were.
    """

    median: float
    low: float
    high: float
    pairs: int

    @property
    def verdict(self) -> str:
        """`less`, `more`, or `not shown` where the interval holds 1."""
        if self.high < 1:
            return "less"
        return "more" if self.low > 1 else "not shown"


def ratio(of: NDArray[Any], over: NDArray[Any]) -> Ratio:
    """The ratio of two columns of samples, both (rounds,) and positive."""
    logs = np.sort(np.log(of) - np.log(over))
    rank = interval_rank(len(logs))
    low, high = (exp(logs[rank - 1]), exp(logs[-rank])) if rank else (0.0, float("inf"))
    return Ratio(exp(float(np.median(logs))), low, high, len(logs))


def interval_rank(pairs: int, level: float = LEVEL) -> int:
    """Between which order statistics, counted from both ends, a median lies with this confidence; 0 for too few.

    The chance that fewer than k of n samples lie on one side of it is a fair coin's.
    """
    below, rank = 0, 0
    while rank < pairs and 2 * (below + comb(pairs, rank)) <= (1 - level) * 2**pairs:
        below += comb(pairs, rank)
        rank += 1
    return rank


def neighbours(modes: Sequence[str]) -> list[tuple[str, str]]:
    """Every mode with the next denser one."""
    return list(zip(modes[1:], modes))


def compared(name: str, samples: Samples, what: str, words: Mapping[str, str]) -> dict[str, Figure]:
    """A figure for each mode over the next denser one.

    Args:
        name: what was run, before the modes in a figure's name.
        samples: of each mode, densest first.
        what: was compared, in a line.
        words: for `less` and `more`.
    """
    found: dict[str, Figure] = {}
    for mode, denser in neighbours(list(samples)):
        one = ratio(samples[mode], samples[denser])
        verdict = words.get(one.verdict, "no difference shown")
        how = f"{verdict}; median of {one.pairs} pairs, {LEVEL:.0%} interval {one.low:.4g} to {one.high:.4g}; {what}"
        found[f"{name}: {mode} over {denser}"] = reported(one.median, "x", how)
    return found


def energy_figures(what: str, found: Energies, rows: int) -> dict[str, Figure]:
    """Energy of one image in each mode, and each mode over the next denser one, with idle and without."""
    figures: dict[str, Figure] = {}
    how = (
        f"median of {len(found.idle_w)} windows of at least {WINDOW_S:g} s by NVML, the GPU alone, an image of a batch"
    )
    for kind, samples in (("energy", found.whole_mj), ("energy above idle", found.above_idle_mj)):
        for mode, values in samples.items():
            figures[f"{what}: {mode}, {kind}"] = reported(float(np.median(values)) / rows, "mJ", how)
        if all((values > 0).all() for values in samples.values()):
            figures |= compared(f"{kind}, {what}", samples, "windows by round", {"less": "cheaper", "more": "dearer"})
    for when, watts in zip(("before", "after"), found.idle_w):
        figures[f"{what}: idle {when}"] = reported(watts, "W", "a window without work")
    return figures


def sentences(figures: Mapping[str, Figure]) -> dict[str, list[str]]:
    """Which comparisons say what, by their verdict."""
    found: dict[str, list[str]] = {}
    for name, figure in figures.items():
        if " over " in name:
            found.setdefault(figure.how.split(";")[0], []).append(f"{name}: {figure.value:.3f}")
    return found
