"""How much of the best known frontier does each search find, and with how many evaluations?

On synthetic spaces (`synthetic_spaces`), and by `study` on any problem, such as a trained network's.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean

from benchmarks.common import Arguments, Figure, Measured, at_least, at_most, reported, run
from benchmarks.synthetic_spaces import REFERENCE, Generator, draw
from wenet_runtime.pareto import hypervolume, pareto_front
from wenet_trainer.explore.evolve import evolve
from wenet_trainer.explore.evolve import explore as nsga2
from wenet_trainer.explore.paper import explore as algorithm2
from wenet_trainer.explore.problem import Found, Problem, Search, Seen
from wenet_trainer.explore.table import explore as table
from wenet_trainer.space import GroupConfig

QUESTION = "How much of the best known frontier does each search find, and with how many evaluations?"
LONG = 20_000  # evaluations of the run that only tells what the best is
INSTANCES, QUICK_INSTANCES, QUICK_LONG = 12, 2, 2000
PAPER, TABLE, TABLE_LONG = "paper", "table_250", "table_500"
CHEAP, CHEAP_SHARE = "table_cheap", 0.4  # as many evaluations as this share of Algorithm 2's, at most 250
# Name → search, evaluations. Algorithm 2 knows no bound.
ARMS: Mapping[str, tuple[Search, int]] = {
    PAPER: (algorithm2, 0),
    TABLE: (table, 250),
    TABLE_LONG: (table, 500),
    "evolve_250": (nsga2, 250),
    "evolve_500": (nsga2, 500),
    "evolve_2000": (nsga2, 2000),
}
# Part of a figure's name → how instances are drawn, which search is to reach 0.98 of the best, how many instances.
SPACES: Mapping[str, tuple[Generator, str, int]] = {
    "no_interaction": (Generator(), TABLE, INSTANCES),
    "mild": (Generator(strength=0.25), TABLE, INSTANCES),
    "strong": (Generator(strength=0.75), TABLE_LONG, INSTANCES),
    "strong_far": (Generator(strength=0.75, far=True), TABLE_LONG, INSTANCES),
    "wide_spread": (Generator(strength=0.25, spread=1.4, time_spread=0.7), TABLE, INSTANCES),
    "52_knobs": (Generator(strength=0.25, knobs=52), TABLE, 3),
}

Factory = Callable[[int, int], Problem]


@dataclass(frozen=True)
class Arm:
    """What one search reached on one problem.

    Attributes:
        method: its name.
        evaluations: configurations whose accuracy it asked for.
        seconds: its own time, without evaluations.
        hypervolume: as a share of the box between the reference and (0 ms, accuracy 1).
        share: of the best known hypervolume.
    """

    method: str
    evaluations: int
    seconds: float
    hypervolume: float
    share: float


def compare(
    factory: Factory,
    reference: tuple[float, float],
    *,
    seed: int,
    long: int,
    known: Sequence[GroupConfig] = (),
    without: Collection[str] = (),
) -> list[Arm]:
    """All searches on one problem; the best known is the union of all that any of them saw, and of `known`.

    Args:
        factory: makes the problem, from evaluations and seed.
        reference: milliseconds and accuracy that hypervolume is measured from.
        seed: of every search.
        long: evaluations of an evolution that begins with the others' frontiers; only the union knows it. 0: none.
        known: configurations that belong to the union, too: the true frontier where it is known.
        without: searches that are left out.
    """
    found = {
        name: search(factory(evaluations, seed)) for name, (search, evaluations) in ARMS.items() if name not in without
    }
    cheap = min(ARMS[TABLE][1], int(CHEAP_SHARE * len(found[PAPER].seen)))
    found[CHEAP] = table(factory(cheap, seed))
    everything = [one for each in found.values() for one in each.seen]
    if long:
        everything += evolve(factory(long, seed), _fronts(found.values())).seen
    problem = factory(0, seed)
    everything += [
        Seen(config, accuracy, problem.cost(config), "known")
        for config, accuracy in zip(known, problem.accuracies(known) if known else (), strict=True)
    ]
    best = _hypervolume(everything, reference)
    return [
        Arm(name, len(each.seen), each.search_seconds, reached, reached / best)
        for name, each in found.items()
        for reached in [_hypervolume(each.seen, reference)]
    ]


def study(
    factory: Factory,
    name: str,
    reference: tuple[float, float],
    *,
    goal_of: str,
    seed: int = 0,
    long: int = LONG,
    without: Collection[str] = (),
) -> Measured:
    """Figures and samples of one problem, e.g. of a trained network's; see `compare`.

    Args:
        name: begins every figure's name.
        goal_of: the search that is to reach 0.98 of the best known: `TABLE` or `TABLE_LONG`.
        without: searches that are left out.
    """
    arms = compare(factory, reference, seed=seed, long=long, without=without)
    return _figures(name, [arms], goal_of), {name: [asdict(arm) for arm in arms]}


def measure(arguments: Arguments) -> Measured:
    """Every synthetic space, instance by instance."""
    figures: dict[str, Figure] = {}
    samples: dict[str, list[list[dict[str, object]]]] = {}
    for space, (generator, goal_of, instances) in SPACES.items():
        studied = []
        for index in range(min(instances, QUICK_INSTANCES) if arguments.quick else instances):
            seed = 1000 * arguments.seed + index
            instance = draw(generator, random.Random(seed))
            long = QUICK_LONG if arguments.quick else LONG
            studied.append(compare(instance.problem, REFERENCE, seed=seed, long=long, known=instance.best()))
        figures.update(_figures(f"synthetic_{space}", studied, goal_of))
        samples[f"synthetic_{space}"] = [[asdict(arm) for arm in arms] for arms in studied]
    return figures, samples


def _figures(name: str, studied: Sequence[Sequence[Arm]], goal_of: str) -> dict[str, Figure]:
    """Means over instances, the worst instance, and the comparison with Algorithm 2."""
    how = f"mean of {len(studied)} instances, hypervolume over the best known"
    names = dict.fromkeys(arm.method for arms in studied for arm in arms)
    by_method = {name: [arm for arms in studied for arm in arms if arm.method == name] for name in names}
    figures = {}
    for method, arms in by_method.items():
        share = mean(arm.share for arm in arms)
        is_goal = method == goal_of
        figures[f"{name}_{method}_share"] = (
            at_least(share, 0.98, "of best known", how) if is_goal else reported(share, "of best known", how)
        )
        worst = min(arm.share for arm in arms)
        figures[f"{name}_{method}_worst_share"] = reported(worst, "of best known", "the worst instance")
        count = mean(arm.evaluations for arm in arms)
        figures[f"{name}_{method}_evaluations"] = reported(count, "evaluations", "mean")
    paper, ours = by_method[PAPER], by_method[CHEAP]
    above = mean(one.share - other.share for one, other in zip(ours, paper, strict=True))
    figures[f"{name}_{CHEAP}_above_paper"] = at_least(above, 0.05, "of best known", "mean difference of shares")
    asked = mean(one.evaluations / other.evaluations for one, other in zip(ours, paper, strict=True))
    figures[f"{name}_{CHEAP}_evaluations_of_paper"] = at_most(asked, CHEAP_SHARE, "of Algorithm 2's", "mean ratio")
    seconds = max(arm.seconds for method in (TABLE, TABLE_LONG) for arm in by_method[method])
    figures[f"{name}_table_search_seconds"] = at_most(seconds, 10, "s", "the longest, 250 and 500 evaluations")
    return figures


def _fronts(found: Iterable[Found]) -> list[GroupConfig]:
    """The configurations on each search's own frontier."""
    configs: list[GroupConfig] = []
    for each in found:
        front = pareto_front([(one.cost.latency_ms, one.accuracy) for one in each.seen])
        configs += [each.seen[index].groups for index in front]
    return list(dict.fromkeys(configs))


def _hypervolume(seen: Sequence[Seen], reference: tuple[float, float]) -> float:
    box = reference[0] * (1 - reference[1])
    return hypervolume([(one.cost.latency_ms, one.accuracy) for one in seen], reference) / box


if __name__ == "__main__":
    run("searching", QUESTION, measure, needs_bundle=False)
