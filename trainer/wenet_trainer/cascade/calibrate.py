"""From modes' answers on held-out images to certified rules: a function on values, no files and no engines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.manifest import Rule
from wenet_trainer.cascade.errors import CalibrationError
from wenet_trainer.cascade.risk import best_bet, p_value

PILOT = 6  # one image in so many places the thresholds and chooses the pairs; the others certify
STEPS = 100  # thresholds of a pair at most
WORTH = 0.95  # of `then`'s time at most: two measurements of one mode differ by up to 2.6 %
WIDTHS = 2.0  # a pair is expected to be certified where its loss is so many standard errors below epsilon


@dataclass(frozen=True)
class Answers:
    """What one mode answers to the calibration images.

    Attributes:
        margins: (N,) how sure it is of each, see `wenet_runtime.cascade.margin`.
        right: (N,) whether it is right.
    """

    margins: NDArray[np.float64]
    right: NDArray[np.bool_]

    def part(self, rows: NDArray[np.int64]) -> "Answers":
        """The answers to some of the images."""
        return Answers(self.margins[rows], self.right[rows])


@dataclass(frozen=True)
class Goal:
    """What is to be certified: all rules together lose less than epsilon each, with probability 1 - delta.

    Raises:
        CalibrationError: a number is out of its range.
    """

    epsilon: float = 0.003
    delta: float = 0.05

    def __post_init__(self) -> None:
        for name, value in (("epsilon", self.epsilon), ("delta", self.delta)):
            if not 0 < value < 1:
                raise CalibrationError(f"--{name} is {value}, but must be above 0 and below 1")


@dataclass(frozen=True)
class Pair:
    """What came of one pair of modes.

    Attributes:
        expected: the time it was expected to take by the pilot images, as a share of `then`'s; None if it
            saves too little to be tested.
        threshold, escalated, loss: of the loosest certified threshold, the latter two on the certifying images;
            None where nothing was certified.
        cost: its time as a share of `then`'s.
        why: why there is no rule for it; empty where there is one.
    """

    first: str
    then: str
    expected: float | None
    threshold: float | None = None
    escalated: float | None = None
    loss: float | None = None
    cost: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Step:
    """A threshold to be tested, and the bet on each image; both chosen without the images that certify."""

    threshold: float
    bet: float


def calibrate(answers: Mapping[str, Answers], times_ms: Mapping[str, float], goal: Goal) -> list[Pair]:
    """Find, for each mode, the quickest pair that answers as well but for epsilon, and certify it.

    A sixth of the images place the thresholds and choose a `first` for each `then`; the others certify the chosen
    pairs. Of a pair, thresholds are tested from strict to loose until one fails, so that the first error ends it
    (fixed-sequence testing, as in Learn then Test, Angelopoulos et al. 2021); delta is divided among the pairs.

    Args:
        answers: by mode id, all on the same images in the same order, which are independent of each other.
        times_ms: what an image takes, by mode id.
        goal: what is to be certified.

    Returns:
        Every pair of modes whose `first` is the quicker.

    Raises:
        CalibrationError: answers to different numbers of images, or to too few to have a pilot.
    """
    sizes = {len(one.right) for one in answers.values()} | {len(one.margins) for one in answers.values()}
    if len(sizes) != 1 or min(sizes) < PILOT:
        raise CalibrationError(f"modes answer {sorted(sizes)} images: give the same ones, at least {PILOT}, to all")
    images = sizes.pop()
    # Images may come sorted by something; shuffled, the pilot is like the others, and so is any stretch of a bet.
    order = np.random.default_rng(0).permutation(images)
    pilot, rest = (
        {name: one.part(rows) for name, one in answers.items()} for rows in np.split(order, [images // PILOT])
    )
    certifying = images - images // PILOT
    pairs = [
        Pair(first, then, _expected(pilot[first], pilot[then], ms / times_ms[then], certifying, goal.epsilon))
        for then in answers
        for first, ms in sorted(times_ms.items(), key=lambda one: one[1])
        if ms < times_ms[then]
    ]
    chosen = _chosen(pairs)
    alpha = goal.delta / max(1, len(chosen))
    found = []
    for pair in pairs:
        if pair in chosen:
            steps = planned(pilot[pair.first], pilot[pair.then], certifying, alpha)
            passed = certify(rest[pair.first], rest[pair.then], steps, goal.epsilon, alpha)
            found.append(_outcome(pair, rest[pair.first], rest[pair.then], passed, times_ms))
        else:
            found.append(replace(pair, why=_why_left(pair, chosen)))
    return found


def rules_of(pairs: Sequence[Pair], goal: Goal, images: int, data_sha256: str) -> tuple[Rule, ...]:
    """The certified pairs as a bundle carries them.

    Args:
        pairs: from `calibrate`.
        goal: what was certified.
        images: how many it was given; those behind the certificate are fewer.
        data_sha256: tells them from others.
    """
    return tuple(
        Rule(
            first=pair.first,
            then=pair.then,
            score="margin",
            threshold=pair.threshold,
            epsilon=goal.epsilon,
            delta=goal.delta,
            images=images - images // PILOT,
            escalated=pair.escalated,
            loss=pair.loss,
            data_sha256=data_sha256,
        )
        for pair in pairs
        if not pair.why and pair.threshold is not None and pair.escalated is not None and pair.loss is not None
    )


def thresholds(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where to try a threshold: quantiles of the margins, from strict to loose; the last never escalates."""
    known = margins[np.isfinite(margins)]
    at = np.quantile(known, np.linspace(1.0, 0.0, STEPS, endpoint=False)) if len(known) else known
    descending: NDArray[np.float64] = np.unique(np.append(at, 0.0))[::-1]
    return descending


def losses(first: Answers, then: Answers, threshold: float) -> NDArray[np.int8]:
    """What each image loses by the cascade against `then` alone: 1, 0, or -1 where the cascade alone is right: (N,)."""
    sure = first.margins >= threshold  # a margin that is no number is not
    return np.where(sure, then.right.astype(np.int8) - first.right.astype(np.int8), np.int8(0))


def planned(first: Answers, then: Answers, images: int, alpha: float) -> list[Step]:
    """The thresholds to test and what to bet on each, by the pilot images alone.

    Args:
        first, then: their answers to the pilot images.
        images: how many will certify.
        alpha: the p-value that is wanted.
    """
    found = []
    for threshold in thresholds(first.margins):
        differing = int(np.count_nonzero(losses(first, then, threshold)))
        found.append(Step(float(threshold), best_bet(differing, len(first.right), images, alpha)))
    return found


def certify(first: Answers, then: Answers, steps: Sequence[Step], epsilon: float, alpha: float) -> float | None:
    """The loosest threshold whose mean loss is below epsilon; None where not even the strictest is shown to be.

    Args:
        first, then: their answers to images that chose none of the steps.
        steps: from strict to loose.
        epsilon: mean loss that is too much.
        alpha: greatest chance of returning a threshold whose true mean loss is epsilon or more.
    """
    passed = None
    for step in steps:
        lost = losses(first, then, step.threshold)
        # A capital that was there once certifies, but nobody should be offered what looks too bad in the end.
        if lost.mean() >= epsilon or p_value(lost, epsilon=epsilon, bet=step.bet) > alpha:
            break
        passed = step.threshold
    return passed


def _expected(first: Answers, then: Answers, ratio: float, certifying: int, epsilon: float) -> float | None:
    """The time by the loosest threshold that will probably be certified, as a share of `then`'s; None: too little."""
    best = WORTH
    for threshold in thresholds(first.margins):
        lost = losses(first, then, threshold)
        if lost.mean() + WIDTHS * lost.std() / sqrt(certifying) < epsilon:
            best = min(best, ratio + float((~(first.margins >= threshold)).mean()))
    return best if best < WORTH else None


def _chosen(pairs: Sequence[Pair]) -> list[Pair]:
    """The most promising pair of each second mode."""
    best: dict[str, Pair] = {}
    for pair in sorted(pairs, key=lambda one: one.expected or 0.0):
        if pair.expected is not None:
            best.setdefault(pair.then, pair)
    return list(best.values())


def _why_left(pair: Pair, chosen: Sequence[Pair]) -> str:
    better = [other.first for other in chosen if other.then == pair.then]
    if pair.expected is None or not better:
        return "on the pilot images no threshold saves enough time"
    return f"on the pilot images '{better[0]}' before '{pair.then}' saves more time"


def _outcome(pair: Pair, first: Answers, then: Answers, threshold: float | None, times_ms: Mapping[str, float]) -> Pair:
    if threshold is None:
        return replace(pair, why=f"nothing is certified on {len(first.right)} images")
    escalated = float((~(first.margins >= threshold)).mean())
    cost = times_ms[pair.first] / times_ms[pair.then] + escalated
    return replace(
        pair,
        threshold=threshold,
        escalated=escalated,
        loss=float(losses(first, then, threshold).mean()),
        cost=cost,
        why="" if cost < WORTH else "what is certified saves too little time",
    )
