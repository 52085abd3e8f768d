"""NSGA-II, by pymoo: the search that assumes nothing about the problem and needs evaluations instead."""

import random
from collections.abc import Sequence
from math import sqrt
from types import SimpleNamespace
from typing import Any

import numpy as np

from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.draws import start
from wenet_trainer.explore.ledger import Ledger, refuse_unreachable
from wenet_trainer.explore.problem import Found, Limits, Problem, Seen
from wenet_trainer.explore.terms import Floats, shape_of
from wenet_trainer.space import GroupConfig

FOUND_BY = "evolution"
POPULATION = (16, 100)  # the least and the most
STALE = 20  # generations without anything new, after which a small space is taken to be known


def explore(problem: Problem) -> Found:
    """Evolve from the uniform modes and random configurations with at most `problem.evaluations` accuracies.

    Raises:
        ExploreError: pymoo is not installed, or nothing in the first population is as accurate as wanted.
    """
    return evolve(problem, ())


def evolve(problem: Problem, seeds: Sequence[GroupConfig]) -> Found:
    """The same, with further configurations in the first population."""
    pymoo = _pymoo()
    space, shape = problem.space, shape_of(problem.space)
    ledger = Ledger(problem)
    uniforms = ledger.ask(space.uniforms(), "uniform")
    with_energy = all(one.cost.energy_mj is not None for one in uniforms)
    least, most = POPULATION
    population = min(max(int(sqrt(2 * problem.evaluations)), least), most)
    vectors = np.array([space.vector(one.groups) for one in uniforms], dtype=np.intp)
    costs = [one.cost.latency_ms for one in uniforms]
    drawn = start(shape, vectors, costs, population - len(uniforms), random.Random(problem.seed))
    given = np.array([space.vector(config) for config in seeds], dtype=np.intp).reshape(-1, len(shape))
    first = np.unique(np.concatenate([vectors, drawn, given]), axis=0)

    rounding = pymoo.RoundingRepair()
    algorithm = pymoo.NSGA2(
        pop_size=population,
        sampling=first,
        crossover=pymoo.SBX(prob=0.9, eta=3.0, vtype=float, repair=rounding),
        mutation=pymoo.PM(prob=1.0, eta=3.0, vtype=float, repair=rounding),
        eliminate_duplicates=True,
    )
    algorithm.setup(
        pymoo.Problem(
            n_var=len(shape),
            n_obj=3 if with_energy else 2,
            n_ieq_constr=3 if with_energy else 2,
            xl=np.zeros(len(shape), dtype=int),
            xu=np.array(shape) - 1,
            vtype=int,
        ),
        termination=pymoo.NoTermination(),
        seed=problem.seed,
    )
    stale = 0
    while ledger.left > 0 and stale < STALE:
        born = algorithm.ask()
        if born is None or len(born) == 0:
            break
        before = ledger.left
        configs = [space.config([int(level) for level in vector]) for vector in born.get("X")]
        answers = ledger.ask(configs, FOUND_BY)
        if len(answers) < len(configs):
            break
        born.set("F", _objectives(answers, with_energy=with_energy))
        born.set("G", _exceeded(answers, problem.limits, with_energy=with_energy))
        algorithm.tell(infills=born)
        stale = stale + 1 if ledger.left == before else 0
    refuse_unreachable(ledger.seen, problem.limits)
    return ledger.found()


def _pymoo() -> Any:
    """The library's names that are used here."""
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem as PymooProblem
        from pymoo.core.termination import NoTermination
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
    except ImportError as error:
        raise ExploreError(
            f"the evolutionary search needs pymoo ({error}): pip install 'wenet-trainer[search]'"
        ) from None
    return SimpleNamespace(
        NSGA2=NSGA2, Problem=PymooProblem, NoTermination=NoTermination, SBX=SBX, PM=PM, RoundingRepair=RoundingRepair
    )


def _objectives(seen: Sequence[Seen], *, with_energy: bool) -> Floats:
    """What is minimised, (n, 2 or 3)."""
    rows = [[one.cost.latency_ms, 1 - one.accuracy] for one in seen]
    if with_energy:
        rows = [[*row, one.cost.energy_mj or 0.0] for row, one in zip(rows, seen, strict=True)]
    return np.array(rows)


def _exceeded(seen: Sequence[Seen], limits: Limits, *, with_energy: bool) -> Floats:
    """By how much each limit is broken, (n, 2 or 3); 0 or less where it is kept."""
    most = np.array([_or_infinity(limits.max_ms), 1 - limits.min_accuracy, _or_infinity(limits.max_mj)])
    objectives = _objectives(seen, with_energy=with_energy)
    broken: Floats = np.maximum(objectives - most[: objectives.shape[1]], 0.0)
    return broken


def _or_infinity(limit: float | None) -> float:
    return float("inf") if limit is None else limit
