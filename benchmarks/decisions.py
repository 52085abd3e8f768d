"""Does our controller hold budgets when the world changes, and what does it give away for that?

A trace-driven simulation of one device (`benchmarks.simulator`) around the daemon's own scheduler, beside a
clairvoyant and the usual rivals. `python -m benchmarks.simulator.soak` is the long run that watches memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.common import Arguments, Figure, Measured, at_least, at_most, reported, run
from benchmarks.simulator.device import measured, paper
from benchmarks.simulator.families import FULL, LOADS, Case, arrival_cases, cases
from benchmarks.simulator.figures import Interval, Verdict, compare
from benchmarks.simulator.noise import QUIET, SHARED_CORE
from benchmarks.simulator.picture import write_picture
from benchmarks.simulator.players import OURS, RIVALS, SMALLEST, STRICT
from benchmarks.simulator.speed import MODES, decision_us, seconds
from benchmarks.simulator.study import Outcome, clear, play_case

QUESTION = "Does our controller hold budgets when the world changes, and what does it give away for that?"
SEEDS, COUNT = 4, 4000
QUICK_SEEDS, QUICK_COUNT = 2, 150
DECISIONS, REQUESTS = 20_000, 1_000_000
QUICK_DECISIONS, QUICK_REQUESTS = 400, 2_000
DECISION_US, SIMULATED_S = 50.0, 60.0
BURSTS = ("gamma CV² 2", "gamma CV² 4", "gamma CV² 8")
STEPS = ("steps", "memory contention", "clock change", "clock change, noticed")
SHOWN_LOAD = 0.5  # the picture's


def measure(arguments: Arguments) -> Measured:
    """Play everything; about eight minutes on one core."""
    seeds = range(arguments.seed, arguments.seed + (QUICK_SEEDS if arguments.quick else SEEDS))
    count = QUICK_COUNT if arguments.quick else COUNT
    outcomes = [play_case(case, seeds, count) for case in chosen(seeds, count, quick=arguments.quick)]
    figures, samples = judge(outcomes)
    speeds, timed = _speed(arguments)
    if arguments.out is not None:
        shown = [one for one in outcomes if _shown(one.case)]
        write_picture(shown or outcomes[:4], arguments.out.with_suffix(".png"))
    settings = {
        "devices": {one.name: one.source for one in (measured(), paper())},
        "noise": {"quiet": vars(QUIET), "shared core": vars(SHARED_CORE)},
        "seeds": len(seeds), "requests": count,
    }  # fmt: skip
    goals = figures | speeds
    if arguments.quick:  # too few samples to judge
        goals = {name: reported(one.value, one.unit, one.how) for name, one in goals.items()}
    return goals, {"settings": settings, **samples, "speed": timed, "cases": [one.row() for one in outcomes]}


def chosen(seeds: Sequence[int], count: int, *, quick: bool) -> list[Case]:
    """The study's cases."""
    ours, board = measured(), paper()
    if quick:
        return [case for case in cases(ours, (LOADS[0],)) if case.family in ("Poisson", *BURSTS, "steps")]
    found = cases(ours) + cases(board, (LOADS[0], LOADS[2]), tight=False)
    widened = [clear(case, seeds, count) for device in (ours, board) for case in arrival_cases(device)]
    return found + [case for case in widened if case is not None]


def judge(outcomes: Sequence[Outcome]) -> tuple[dict[str, Figure], dict[str, Any]]:
    """The figures, and who won where."""
    figures: dict[str, Figure] = {}
    families: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        families.setdefault(outcome.case.family, []).append(outcome)
    figures.update(_bursts(families))
    figures.update(_steps(families))
    figures.update(_accuracy(families))
    verdicts = {
        rival: {family: compare(_scores(of, OURS), _scores(of, rival)) for family, of in families.items()}
        for rival in (*RIVALS, SMALLEST)
    }
    for rival, by_family in verdicts.items():
        lost = [family for family, verdict in by_family.items() if verdict.result <= 0]
        how = f"of {len(by_family)}; attainment first, where the seeds tell it apart, then accuracy"
        how += f"; not better on: {', '.join(lost)}" if lost else ""
        figures[f"families on which ours is not better than {rival}"] = at_most(len(lost), 0, "families", how)
    return figures, {
        "families": {
            rival: {family: _verdict(one) for family, one in by_family.items()}
            for rival, by_family in verdicts.items()
        },
        "cases lost": {
            rival: [
                one.case.name for one in outcomes if compare([one.scores[OURS]], [one.scores[rival]]).result < 0
            ]
            for rival in verdicts
        },
    }  # fmt: skip


def _bursts(families: Mapping[str, Sequence[Outcome]]) -> Iterable[tuple[str, Figure]]:
    for family in BURSTS:
        held = [one for one in families.get(family, ()) if one.possible]
        if held:
            worst = min(held, key=_strict)
            value = Interval.of([score.attainment for score in worst.scores[STRICT]])
            how = f"--attainment 0.999; worst of {len(held)} cases where the clairvoyant misses nothing "
            how += f"(their mean is {fmean(map(_strict, held)):.5f}): {worst.case.name}; ± {value.half:.2g}"
            yield f"{family}: attainment", at_least(value.mean, 0.999, "", how)


def _steps(families: Mapping[str, Sequence[Outcome]]) -> Iterable[tuple[str, Figure]]:
    for family in STEPS:
        for one in families.get(family, ()):
            if one.case.load > LOADS[0]:
                continue
            value = Interval.of([score.attainment for score in one.scores[OURS]])
            misses = [count for score in one.scores[OURS] for count in score.after_steps]
            where = f"{family}, {one.case.device.name}"
            how = f"load {one.case.load:g}, budget {one.case.budget}; the clairvoyant reaches "
            how += f"{Interval.of(one.oracle_attainment).mean:.4f}; ± {value.half:.2g}"
            yield f"{where}: attainment", at_least(value.mean, 0.99, "", how)
            if misses:
                how = f"of 50 arrivals after each of {len(misses)} slowdowns, the worst; {sum(misses)} in all"
                yield f"{where}: misses after a step", at_most(max(misses), 5, "requests", how)


def _accuracy(families: Mapping[str, Sequence[Outcome]]) -> Iterable[tuple[str, Figure]]:
    """Only where the clairvoyant is a bound; apart, where it can answer everything and where it cannot."""
    for family, outcomes in families.items():
        bounded = [one for one in outcomes if one.case.bounded]
        for possible, where in ((True, "where it misses nothing"), (False, "where it misses some")):
            there = [one for one in bounded if one.possible == possible]
            if there:
                worst = max(there, key=_behind)
                value = Interval.of([100 * score.behind for score in worst.scores[OURS]])
                how = f"at equal attainment; worst of {len(there)} cases (their mean is "
                how += f"{fmean(map(_behind, there)):.3g}): {worst.case.name}; ± {value.half:.2g}"
                yield f"{family}: accuracy under the clairvoyant {where}", at_most(value.mean, 1.0, "points", how)


def _speed(arguments: Arguments) -> tuple[dict[str, Figure], dict[str, Any]]:
    decisions = decision_us(QUICK_DECISIONS if arguments.quick else DECISIONS, arguments.seed)
    requests = QUICK_REQUESTS if arguments.quick else REQUESTS
    taken = seconds(requests, arguments.seed)
    figures = {
        f"{name}: p99": at_most(
            one["p99"], DECISION_US, "µs", f"processor time with {MODES} modes; p50 {one['p50']:.3g} µs"
        )
        for name, one in decisions.items()
    }
    for name, value in taken.items():
        figures[f"simulated requests, {name}"] = at_most(value, SIMULATED_S, "s", f"for {requests} requests")
    return figures, {"decision_us": decisions, "simulated_s": taken}


def _behind(outcome: Outcome) -> float:
    return Interval.of([100 * score.behind for score in outcome.scores[OURS]]).mean


def _strict(outcome: Outcome) -> float:
    return fmean(score.attainment for score in outcome.scores[STRICT])


def _scores(outcomes: Sequence[Outcome], player: str) -> list[Sequence[Any]]:
    return [outcome.scores[player] for outcome in outcomes]


def _shown(case: Case) -> bool:
    plain = case.budget in (f"{FULL:g} x full", "mixed") and case.max_batch == 1
    alike = case.family in ("meter loss", "clock change, noticed")  # as Poisson and as the change without notice
    return plain and not alike and case.load == SHOWN_LOAD and case.device.name == "measured"


def _verdict(one: Verdict) -> dict[str, Any]:
    return {
        "better": one.result, "by": one.by,
        "attainment": [round(one.attainment.mean, 5), round(one.attainment.half, 5)],
        "accuracy": [round(one.accuracy.mean, 5), round(one.accuracy.half, 5)],
    }  # fmt: skip


if __name__ == "__main__":
    run("decisions", QUESTION, measure, needs_bundle=False)
