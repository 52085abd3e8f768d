"""Which modes are worth offering: those that are measurably faster, or more frugal, than every more accurate one."""

import math
from dataclasses import dataclass
from typing import Any, Collection, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.pareto import spread

GAIN = 0.95  # identical graphs differ by up to 2.6 % in time, and a mode must be worth a choice
DOUBT = 0.01  # that a mode is no faster than another, and was so often quicker by chance


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mode with what it was measured to cost.

    Attributes:
        accuracy: 0–1.
        samples_ms: (N,) of one row; sample k of all candidates is from the same round.
        energy_mj: of one row; None where it is unknown.
    """

    id: str
    accuracy: float
    samples_ms: NDArray[Any]
    energy_mj: Optional[float] = None

    @property
    def median_ms(self) -> float:
        """The median of its samples."""
        return float(np.median(self.samples_ms))


@dataclass(frozen=True)
class Left:
    """A mode that is not worth offering here. `why` is a sentence with the figures."""

    id: str
    why: str


@dataclass(frozen=True)
class Selected:
    """The modes that a device offers of a bundle.

    Attributes:
        wanted: how many were asked for.
        modes: ids, most accurate first.
        left: the others.
    """

    wanted: int
    modes: Tuple[str, ...]
    left: Tuple[Left, ...] = ()


def select(candidates: Sequence[Candidate], keep: int, *, always: Collection[str] = ()) -> Tuple[List[str], List[Left]]:
    """Choose the modes worth offering.

    A candidate stays only if it is, against every more accurate one that stays, measurably faster or measurably more
    frugal. Of more than `keep` such, the one that adds least hypervolume goes repeatedly, but never the most
    accurate, the fastest or those in `always`.

    Args:
        candidates: measured interleaved. Of equally accurate ones the faster counts as the more accurate.
        keep: how many, at least 2.
        always: ids that stay whatever was measured.

    Returns:
        Ids of those that stay, from the most accurate to the fastest, and the others with the reason.

    Raises:
        ValueError: `keep` is below 2, ids repeat, an id in `always` is no candidate's, or not all have as many samples.
    """
    _check(candidates, keep, always)
    ranked = sorted(candidates, key=lambda one: (-one.accuracy, one.median_ms))
    kept: List[Candidate] = []
    worse: List[Tuple[Candidate, List[Candidate]]] = []
    for one in ranked:
        better = [other for other in kept if not _measurably_cheaper(one, other)]
        if better and one.id not in always:
            worse.append((one, better))
        else:
            kept.append(one)
    chosen = _spread(kept, keep, always)
    left = [Left(one.id, _why_not(one, better, chosen)) for one, better in worse]
    left += [
        Left(one.id, f"worth offering ({_figures(one)}), but {keep} modes were asked for and this one is missed least")
        for one in kept
        if one not in chosen
    ]
    return [one.id for one in chosen], left


def _check(candidates: Sequence[Candidate], keep: int, always: Collection[str]) -> None:
    ids = [one.id for one in candidates]
    if keep < 2:
        raise ValueError(f"keep is {keep}, but must be at least 2: the most accurate mode and the fastest")
    if len(set(ids)) != len(ids):
        raise ValueError(f"candidates are named {', '.join(ids)}: give each an id of its own")
    if not set(always) <= set(ids):
        raise ValueError(f"always names {', '.join(sorted(set(always) - set(ids)))}, which no candidate is called")
    sizes = {one.samples_ms.shape for one in candidates}
    if len(sizes) > 1 or any(len(size) != 1 or size[0] < 1 for size in sizes):
        raise ValueError(f"samples have the shapes {sorted(sizes)}: measure all candidates in the same rounds")


def ratio(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The median of the paired ratios of two (N,) series of times."""
    return float(np.median(one / other))


def chance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """One-sided sign test: how likely `one` were below `other` in as many pairs if neither were faster.

    Exact, from the binomial distribution; pairs that are equal say nothing.
    """
    below, above = int((one < other).sum()), int((one > other).sum())
    pairs = below + above
    # Logarithms of k!, so that no number of pairs is too large.
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, pairs + 1)))])
    counts = np.arange(below, pairs + 1)
    terms = factorials[pairs] - factorials[counts] - factorials[pairs - counts] - pairs * math.log(2)
    return min(1.0, float(np.exp(terms).sum()))


def _measurably_cheaper(one: Candidate, other: Candidate) -> bool:
    """Whether a mode is measurably faster or more frugal than another."""
    if ratio(one.samples_ms, other.samples_ms) < GAIN and chance(one.samples_ms, other.samples_ms) < DOUBT:
        return True
    return one.energy_mj is not None and other.energy_mj is not None and one.energy_mj < GAIN * other.energy_mj


def _why_not(one: Candidate, better: Sequence[Candidate], chosen: Sequence[Candidate]) -> str:
    """Names the mode by which it loses most, one that is offered if there is one."""
    offered = [other for other in better if other in chosen]
    worst = max(offered or better, key=lambda other: ratio(one.samples_ms, other.samples_ms))
    share, doubt = ratio(one.samples_ms, worst.samples_ms), chance(one.samples_ms, worst.samples_ms)
    how = "as accurate" if worst.accuracy == one.accuracy else "more accurate"
    either = "" if offered else " and which is not offered either"
    frugal, energy = "", ""
    if one.energy_mj is not None and worst.energy_mj is not None:
        frugal, energy = " or more frugal", f", {one.energy_mj:.4g} of its {worst.energy_mj:.4g} mJ"
    return (
        f"not measurably faster{frugal} than {worst.id}, which is {how} ({worst.accuracy:.4f} against "
        f"{one.accuracy:.4f}){either}: it takes {share:.3f} of its time (below {GAIN:g} counts), "
        f"sign test p = {doubt:.2g} (below {DOUBT:g} counts){energy}"
    )


def _figures(one: Candidate) -> str:
    energy = "" if one.energy_mj is None else f", {one.energy_mj:.4g} mJ"
    return f"accuracy {one.accuracy:.4f}, {one.median_ms:.4g} ms{energy}"


def _spread(kept: Sequence[Candidate], keep: int, always: Collection[str]) -> List[Candidate]:
    """At most `keep`, in the same order, but for those that must stay."""
    points = [[one.median_ms, one.accuracy] for one in kept]
    energies = [one.energy_mj for one in kept if one.energy_mj is not None]
    if len(energies) == len(kept):
        points = [[ms, energy, accuracy] for (ms, accuracy), energy in zip(points, energies)]
    if not points:
        return []
    fastest = min(range(len(kept)), key=lambda index: kept[index].median_ms)
    stay = [0, fastest, *(index for index, one in enumerate(kept) if one.id in always)]
    return [kept[index] for index in sorted(spread(points, keep, stay))]
