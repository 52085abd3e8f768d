"""Plays cases: every player in the world of every seed, beside the clairvoyant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.simulator.families import CLEAR, Case
from benchmarks.simulator.figures import Interval, Score, score
from benchmarks.simulator.noise import QUIET, profiles
from benchmarks.simulator.oracle import clairvoyant
from benchmarks.simulator.players import PLAYERS, SMALLEST, static_players
from benchmarks.simulator.players.base import Setup
from benchmarks.simulator.players.static import Static
from benchmarks.simulator.world import IN_TIME, play


@dataclass(frozen=True)
class Outcome:
    """What came of one case; one entry per seed.

    Attributes:
        scores: by player.
        oracle_attainment, oracle_accuracy: of the clairvoyant bound.
        oracle_least: attainment of a schedule that the clairvoyant could really run, of the first seed.
    """

    case: Case
    scores: Mapping[str, Sequence[Score]]
    oracle_attainment: Sequence[float]
    oracle_accuracy: Sequence[float]
    oracle_least: float

    @property
    def possible(self) -> bool:
        """Whether every seed's requests can all be answered in time: the smallest mode alone does it."""
        return all(score.attainment == 1.0 for score in self.scores[SMALLEST])

    def row(self) -> dict[str, object]:
        """For the result file: means over seeds and half of their 95 % intervals."""
        return {
            "case": self.case.name,
            "bounded": self.case.bounded,
            "oracle": {
                "attainment": round(Interval.of(self.oracle_attainment).mean, 5),
                "first_seed": [round(self.oracle_least, 5), round(self.oracle_attainment[0], 5)],
                "accuracy": round(Interval.of(self.oracle_accuracy).mean, 5),
            },
            "players": {name: _means(scores) for name, scores in self.scores.items()},
        }


def play_case(case: Case, seeds: Sequence[int], count: int) -> Outcome:
    """Every player in every seed's world of so many requests."""
    setup = Setup(case.device, profiles(case.device, QUIET), case.max_batch)
    scores: dict[str, list[Score]] = {}
    attainments, accuracies = [], []
    for seed in seeds:
        world = case.world(seed, count)
        bound = clairvoyant(world)
        attainments.append(bound.attainment)
        accuracies.append(bound.accuracy)
        players = {name: make(setup) for name, make in PLAYERS.items()}
        players.update(static_players(setup))
        for name, player in players.items():
            scores.setdefault(name, []).append(score(world, play(world, player), bound))
    least = 1.0
    if scores[SMALLEST][0].attainment < 1.0:
        least = clairvoyant(case.world(seeds[0], count), optimistic=False).attainment
    return Outcome(case, scores, attainments, accuracies, least)


def clear(case: Case, seeds: Sequence[int], count: int) -> Case | None:
    """The case with the tightest of the stated budgets at which the smallest mode alone misses nothing.

    The clairvoyant then misses nothing either. None if no stated budget is wide enough.
    """
    for over_full in CLEAR:
        tried = case.with_budget(over_full, f"clear ({over_full:g} x full)")
        if all(_smallest_suffices(tried, seed, count) for seed in seeds):
            return tried
    return None


def _smallest_suffices(case: Case, seed: int, count: int) -> bool:
    return bool(np.all(play(case.world(seed, count), Static(0)).outcome == IN_TIME))


def _means(scores: Sequence[Score]) -> dict[str, object]:
    fields = (
        "attainment", "accuracy", "accuracy_all", "behind", "regret", "energy_mj", "switches", "refused", "late",
        "expired",
    )  # fmt: skip
    found: dict[str, object] = {}
    for field in fields:
        one = Interval.of([float(getattr(score, field)) for score in scores])
        # JSON knows neither nan (no answer at all) nor infinity (one seed)
        found[field] = [round(value, 5) if np.isfinite(value) else None for value in (one.mean, one.half)]
    steps = [misses for score in scores for misses in score.after_steps]
    if steps:
        found["after_steps"] = {
            "steps": len(steps), "most": max(steps), "mean": round(float(np.mean(steps)), 3),
            "within_5": round(float(np.mean(np.array(steps) <= 5)), 4),
        }  # fmt: skip
    return found
