"""What a search knows: everything it evaluated as arrays, and what these let it predict."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from wenet_runtime.additive import AdditiveCost
from wenet_trainer.explore.ledger import Ledger
from wenet_trainer.explore.predictor import TRANSFORMS, Evidence, Predictor, choose, refit
from wenet_trainer.explore.problem import Problem, Seen
from wenet_trainer.explore.terms import Flags, Floats, Terms, Vectors, of_cost, shape_of
from wenet_trainer.explore.wants import Wants
from wenet_trainer.space import GroupConfig

RECHOSEN = 1.5  # growth of what was evaluated after which a predictor's freedom is chosen anew


@dataclass(frozen=True)
class Knowledge:
    """At one moment of a search.

    Attributes:
        vectors: (n, knobs) level indices of what was evaluated.
        accuracies: (n,).
        costs: (n, objectives) shares of the full network's.
        accuracy: predicts accuracies.
        cost_terms: predict shares, one sum for each objective.
    """

    vectors: Vectors
    accuracies: Floats
    costs: Floats
    accuracy: Predictor
    cost_terms: tuple[Terms, ...]

    def predicted_costs(self, vectors: Vectors) -> Floats:
        """(n, knobs) → (n, objectives)."""
        return np.stack([terms.of(vectors) for terms in self.cost_terms], axis=1)

    def unknown(self, vectors: Vectors) -> Flags:
        """Which rows were not evaluated."""
        known = {row.tobytes() for row in self.vectors}
        return np.array([row.tobytes() not in known for row in np.ascontiguousarray(vectors)], dtype=bool)


class Learner:
    """Asks for configurations and learns from the answers; begins with the uniform modes.

    Args:
        problem: what is explored.
        ledger: where it is asked.
    """

    def __init__(self, problem: Problem, ledger: Ledger) -> None:
        self._problem, self._ledger = problem, ledger
        self.shape = shape_of(problem.space)
        self._vector_of: dict[GroupConfig, tuple[int, ...]] = {}
        answers = self._ask([problem.space.vector(config) for config in problem.space.uniforms()], "uniform")
        self.wants = Wants.of(problem.limits, answers)
        self.uniforms = self._vectors(answers)
        self.uniform_costs = [self.wants.costs(one) for one in answers]
        self._tables = self._read_tables()
        self._predictors: list[Predictor] = []
        self._chosen_at = 0

    def ask(self, vectors: Vectors, found_by: str, known: Knowledge | None = None) -> Floats:
        """Evaluate rows of level indices that were not evaluated before, as far as the ledger goes.

        Returns:
            By how much `known` predicted each evaluated row too high.
        """
        seen = self._ask([tuple(row) for row in vectors.tolist()], found_by)
        if known is None or not seen:
            return np.empty(0)
        missed: Floats = known.accuracy.of(self._vectors(seen)) - np.array([one.accuracy for one in seen])
        return missed

    def _ask(self, vectors: Sequence[tuple[int, ...]], found_by: str) -> list[Seen]:
        configs = [self._problem.space.config(vector) for vector in vectors]
        self._vector_of.update(zip(configs, vectors, strict=True))
        return self._ledger.ask(configs, found_by)

    def _vectors(self, seen: Sequence[Seen]) -> Vectors:
        return np.array([self._vector_of[one.groups] for one in seen], dtype=np.intp)

    def _read_tables(self) -> list[Terms | None]:
        """A sum of shares for each objective, where there is a table of it."""
        given: tuple[AdditiveCost | None, ...] = (self._problem.latency, self._problem.energy)
        return [
            None if table is None else of_cost(table, self._problem.space).times(1 / full)
            for table, full in zip(given, self.wants.full.tolist(), strict=False)
        ]

    def learn(self) -> Knowledge:
        """Fit what has to be predicted to everything there is."""
        seen = self._ledger.seen
        vectors = self._vectors(seen)
        accuracies = np.array([one.accuracy for one in seen])
        costs = np.stack([self.wants.costs(one) for one in seen])
        unknown = [index for index, table in enumerate(self._tables) if table is None]
        values = [accuracies, *(costs[:, index] for index in unknown)]
        evidence = [Evidence(self.shape, vectors, one, self.uniforms) for one in values]
        self._fit(evidence, len(seen))
        fitted = iter(self._predictors[1:])
        terms = tuple(next(fitted).terms if table is None else table for table in self._tables)
        return Knowledge(vectors, accuracies, costs, self._predictors[0], terms)

    def _fit(self, evidence: Sequence[Evidence], count: int) -> None:
        # Matrices of some hundred rows gain nothing from threads, and sums in another order end elsewhere.
        with threadpool_limits(limits=1, user_api="blas"):
            self._fit_alone(evidence, count)

    def _fit_alone(self, evidence: Sequence[Evidence], count: int) -> None:
        if count < RECHOSEN * self._chosen_at:
            self._predictors = [refit(one, like) for one, like in zip(evidence, self._predictors, strict=True)]
            return
        before: Sequence[Predictor | None] = self._predictors or [None for _ in evidence]
        scales = [tuple(TRANSFORMS), *(("plain",) for _ in evidence[1:])]
        self._predictors = [choose(one, names, like) for one, names, like in zip(evidence, scales, before, strict=True)]
        self._chosen_at = count
