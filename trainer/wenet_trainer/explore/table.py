"""The default search: predict, take the best for each cost exactly, evaluate, learn; then polish step by step.

Costs come from a table where there is one, and are predicted as accuracy is where every one is measured.
"""

import random

import numpy as np

from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.draws import start
from wenet_trainer.explore.knowledge import Knowledge, Learner
from wenet_trainer.explore.ledger import Ledger, refuse_unreachable
from wenet_trainer.explore.polish import added, next_steps
from wenet_trainer.explore.problem import Found, Problem
from wenet_trainer.explore.programme import best_by_cost
from wenet_trainer.explore.staircase import Staircase, pick
from wenet_trainer.explore.terms import Floats, Vectors
from wenet_trainer.explore.wants import Wants

START = 0.2  # share of the evaluations that uniform and random configurations take, and the most they take
MOST_AT_START = 50
PROBE = 10  # evaluations that tell whether the programme's points are as good as predicted, before its rounds
ROUNDS = 3
ROUND = 0.16  # share of the evaluations that each round of the programme takes, and the most it takes
MOST_IN_ROUND = 50
BATCH = 10  # evaluations between two fits while polishing, or this share of all where that is more
BATCH_SHARE = 0.04
MISLED = 0.1  # of the accuracies' range: programmed points that are so much worse than predicted end the rounds
MIXES = (0.0, 1.0, 0.5, 0.25, 0.75)  # energy's weight beside latency's, in turn


def explore(problem: Problem) -> Found:
    """Look for the frontier with at most `problem.evaluations` accuracies.

    Raises:
        ExploreError: no configuration can be as cheap as wanted, or nothing at the start is as accurate as wanted.
    """
    ledger = Ledger(problem)
    learner = Learner(problem, ledger)
    rng = random.Random(problem.seed)
    spent = [float(costs[0]) for costs in learner.uniform_costs]
    room = min(int(START * problem.evaluations), MOST_AT_START) - len(spent)
    learner.ask(start(learner.shape, learner.uniforms, spent, room, rng), "random")
    refuse_unreachable(ledger.seen, problem.limits)
    _refuse_unaffordable(learner.learn(), learner.wants)
    directions = _directions(len(learner.wants.full))
    each = -(-min(max(int(ROUND * problem.evaluations), 1), MOST_IN_ROUND) // len(directions))
    optimism = 0.0
    for count in (PROBE, *[each] * ROUNDS):
        known, missed = learner.learn(), []
        for weights in directions:
            missed.append(learner.ask(_best(known, learner.wants, weights, count), "programme", known))
        optimism = max(0.0, float(np.mean(np.concatenate(missed)))) if sum(map(len, missed)) else optimism
        if optimism > MISLED * (max(known.accuracies) - min(known.accuracies)):
            break  # it finds the predictor's mistakes rather than good networks
    batch = max(BATCH, int(BATCH_SHARE * problem.evaluations))
    turn, idle = 0, 0
    while ledger.left > 0 and idle < len(directions):
        weights = directions[turn % len(directions)]
        known = learner.learn()
        steps = next_steps(known, learner.wants, learner.shape, weights, min(batch, ledger.left), optimism=optimism)
        learner.ask(steps, "polish", known)
        turn, idle = turn + 1, 0 if len(steps) else idle + 1
    return ledger.found()


def _directions(objectives: int) -> list[Floats]:
    """How shares of latency and energy are added up to one cost, one way after the other."""
    return [np.ones(1)] if objectives == 1 else [np.array([1 - mix, mix]) for mix in MIXES]


def _best(known: Knowledge, wants: Wants, weights: Floats, count: int) -> Vectors:
    """Of the predicted frontier the points that make up most of its area, without those already evaluated."""
    vectors = best_by_cost(known.accuracy.terms, added(known.cost_terms, weights)).vectors
    accuracies, costs = known.accuracy.of(vectors), known.predicted_costs(vectors)
    kept = wants.kept(accuracies + known.accuracy.error, costs)
    vectors, accuracies, costs = vectors[kept], accuracies[kept], costs[kept]
    nothing = Staircase(np.empty(0), np.empty(0), wants.corner(weights))
    order = np.array(pick(nothing, costs @ weights, accuracies, 2 * count), dtype=np.intp)
    return vectors[order[known.unknown(vectors[order])][:count]]


def _refuse_unaffordable(known: Knowledge, wants: Wants) -> None:
    """Raises `ExploreError` when the cheapest configuration costs more than a limit."""
    kinds = (("latency", "ms", "--max-ms"), ("energy", "mJ", "--max-mj"))
    for index, (name, unit, flag) in enumerate(kinds[: len(wants.full)]):
        terms = known.cost_terms[index]
        predicted = best_by_cost(terms.times(-1), terms).costs
        least = min(float(predicted[0]), float(known.costs[:, index].min()))
        if least > wants.most[index]:
            raise ExploreError(
                f"no configuration keeps to the {name} limit {wants.most[index] * wants.full[index]:.4g} {unit}: the "
                f"cheapest needs {least * wants.full[index]:.4g} {unit}: raise {flag}"
            )
