"""What a player reached in a world, and how two players compare over seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from benchmarks.simulator.oracle import Bound
from benchmarks.simulator.world import EXPIRED, IN_TIME, LATE, REFUSED, Played, World

# Two-sided 95 % quantile of Student's t by degrees of freedom.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
AFTER_STEP = 50


@dataclass(frozen=True)
class Score:
    """One player in one world. Shares are of all arrivals.

    Attributes:
        attainment: answered in time; a refusal is a miss.
        accuracy: mean over those answered in time; nan if there are none.
        accuracy_all: mean over all arrivals, a miss counts 0.
        behind: accuracy that the clairvoyant could have had at the same attainment, less `accuracy`; 0–1.
        regret: `accuracy_all` of the clairvoyant at its best attainment, less the player's.
        energy_mj: of the whole board per arrival, idle time included.
        switches: share of runs in another mode than the run before.
        after_steps: misses among the first 50 arrivals after each sudden slowdown.
    """

    attainment: float
    accuracy: float
    accuracy_all: float
    behind: float
    regret: float
    energy_mj: float
    switches: float
    refused: float
    late: float
    expired: float
    after_steps: tuple[int, ...]


@dataclass(frozen=True)
class Interval:
    """A mean and half of its 95 % interval over seeds (Student's t); infinite for one seed."""

    mean: float
    half: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """Of one value per seed; nan among them, a seed without a value, is left out."""
        there = [value for value in values if not math.isnan(value)]
        if len(there) < 2:
            return cls(there[0] if there else math.nan, math.inf)
        freedom = min(len(there) - 1, len(T95))
        return cls(fmean(there), T95[freedom - 1] * stdev(there) / math.sqrt(len(there)))


@dataclass(frozen=True)
class Verdict:
    """Whether one player is better than another: by attainment where that differs, otherwise by accuracy.

    `result` is 1 (better), 0 (no difference that seeds show) or -1 (worse).
    """

    result: int
    by: str
    attainment: Interval
    accuracy: Interval


def score(world: World, played: Played, bound: Bound) -> Score:
    """Judge one run."""
    count = len(world.trace)
    in_time = played.outcome == IN_TIME
    accuracies = np.array([mode.accuracy for mode in world.device.modes])
    total = float(accuracies[played.mode[in_time]].sum())
    answers = int(in_time.sum())
    accuracy = total / answers if answers else math.nan
    board_mj = played.energy_mj + world.device.idle_w * played.span_s * 1e3
    return Score(
        attainment=answers / count,
        accuracy=accuracy,
        accuracy_all=total / count,
        # Where it is no bound, a player may answer more than it.
        behind=bound.accuracy_at(min(answers, bound.answers)) - accuracy,
        regret=(bound.accuracy * bound.answers - total) / count if bound.answers else 0.0,
        energy_mj=board_mj / count,
        switches=played.switches / max(1, played.runs),
        refused=float((played.outcome == REFUSED).mean()),
        late=float((played.outcome == LATE).mean()),
        expired=float((played.outcome == EXPIRED).mean()),
        after_steps=misses_after_steps(world, played),
    )


def misses_after_steps(world: World, played: Played, count: int = AFTER_STEP) -> tuple[int, ...]:
    """Misses among the first `count` requests that arrive after each sudden slowdown, or end after it."""
    missed = played.outcome != IN_TIME
    ends_s = world.trace.arrivals_s + world.trace.budgets_ms / 1e3
    found = []
    for at_s in world.disturbance.worse_s:
        first = int(np.searchsorted(world.trace.arrivals_s, at_s))
        if first + count > len(missed):
            break
        # What came before the step and was still due is the step's victim too.
        before = int((missed[:first] & (ends_s[:first] > at_s)).sum())
        found.append(before + int(missed[first : first + count].sum()))
    return tuple(found)


def compare(ours: Sequence[Sequence[Score]], theirs: Sequence[Sequence[Score]]) -> Verdict:
    """Compare two players over cases, seed by seed: both met the same worlds in the same order.

    Args:
        ours, theirs: for each case, a score per seed; each seed's scores are averaged over the cases.
    """
    attainment = _differences(ours, theirs, lambda one: one.attainment)
    accuracy = _differences(ours, theirs, lambda one: 0.0 if math.isnan(one.accuracy) else one.accuracy)
    for by, difference in (("attainment", attainment), ("accuracy", accuracy)):
        if abs(difference.mean) > difference.half:
            return Verdict(1 if difference.mean > 0 else -1, by, attainment, accuracy)
    return Verdict(0, "neither", attainment, accuracy)


def _differences(
    ours: Sequence[Sequence[Score]], theirs: Sequence[Sequence[Score]], value: Callable[[Score], float]
) -> Interval:
    pairs = zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    return Interval.of([fmean(map(value, mine)) - fmean(map(value, its)) for mine, its in pairs])
