"""Measured configurations → an additive cost: ridge regression whose penalties leave-one-out error decides.

A layer's term is what its arithmetic would make of it, and a deviation that layers of one kind share, and one of
its own; a pair's term likewise. How much each may deviate follows from the rows.
"""

from dataclasses import dataclass, replace
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.additive import AdditiveCost, PairTerm
from wenet_runtime.table_terms import Terms

Floats = NDArray[np.float64]

FREEDOMS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
NOISES = (0.003, 0.005, 0.01, 0.02, 0.04, 0.08)
SWEEPS = 4
BETTER = 0.999  # another freedom is taken when the error shrinks by more, so that rounding decides nothing
BY_ARITHMETIC = 0.7  # of a layer's weight; the rest is equal for all, because a small layer costs something, too
DIGITS = 9  # of a term, in the cost's own unit


@dataclass(frozen=True)
class Freedoms:
    """How far terms may deviate: standard deviations as shares of the full network's cost.

    Attributes:
        kinds, layers: of the step from one group count to the next, by kind and by layer.
        grouped: of what any two groups cost a kind of pair, as a shuffle that stays does.
        pair_kinds, pairs: of a pair's term, by kind and by pair.
        noise: of a measured cost, as a share of it.
    """

    kinds: float = 0.1
    layers: float = 0.1
    grouped: float = 0.1
    pair_kinds: float = 0.1
    pairs: float = 0.1
    noise: float = 0.02


@dataclass(frozen=True, eq=False)
class Fitted:
    """What rows say.

    Attributes:
        cost: of any configuration.
        errors: (rows,) what each row's cost is mispredicted by when only the others are known, as a share of it.
    """

    cost: AdditiveCost
    errors: Floats


def fit(terms: Terms, groups: Sequence[Mapping[str, int]], ratios: Sequence[float], full: float) -> Fitted:
    """Fit an additive cost, least squares of relative errors.

    Args:
        terms: what the network has.
        groups: configurations that were measured; at least one.
        ratios: what each costs as a share of the full network's cost.
        full: the full network's cost, in the unit that the result shall have.
    """
    design = _Design(terms, groups)
    known = np.asarray(ratios, dtype=np.float64)
    freedoms = _chosen(design, known)
    solved = _Solved(design, known, freedoms)
    return Fitted(_cost(terms, design, solved.weights, freedoms, full), solved.errors)


class _Design:
    """Rows as numbers: which steps of which layers they take, and which pairs have both layers grouped."""

    def __init__(self, terms: Terms, groups: Sequence[Mapping[str, int]]) -> None:
        macs = sum(layer.macs for layer in terms.layers)
        self.steps = [(layer, count) for layer in terms.layers for count in layer.groups[1:]]
        equal = (1 - BY_ARITHMETIC) / max(1, len(terms.layers))
        self.step_weights = np.array([BY_ARITHMETIC * layer.macs / macs + equal for layer, _ in self.steps])
        self.cells = _cells(terms)
        moved = sum(pair.elements for pair in terms.pairs) or 1.0
        equal = (1 - BY_ARITHMETIC) / max(1, len(terms.pairs))
        of_pair = [BY_ARITHMETIC * pair.elements / moved + equal for pair in terms.pairs]
        self.cell_weights = np.array([of_pair[number] for number, _, _ in self.cells])
        self.saved = {layer.name: layer.macs / macs for layer in terms.layers}

        taken = [[float(one[layer.name] >= count) for layer, count in self.steps] for one in groups]
        rows = len(groups)
        self.by_step = np.array(taken).reshape(rows, len(self.steps)) * self.step_weights
        both = [[float(_both(terms, one, cell)) for cell in self.cells] for one in groups]
        self.by_cell = np.array(both).reshape(rows, len(self.cells)) * self.cell_weights
        self.by_macs = np.array(
            [sum(share * (1 / one[name] - 1) for name, share in self.saved.items()) for one in groups]
        )
        self.step_kinds = _indicator([f"{layer.kind} {count}" for layer, count in self.steps])
        pairs = terms.pairs
        self.cell_kinds = _indicator([f"{pairs[number].kind} {one} {other}" for number, one, other in self.cells])
        self.grouped_kinds = _indicator([pairs[number].kind for number, _, _ in self.cells])
        self.kernels: Dict[str, Floats] = {
            "kinds": _gram(self.by_step @ self.step_kinds),
            "layers": _gram(self.by_step),
            "grouped": _gram(self.by_cell @ self.grouped_kinds),
            "pair_kinds": _gram(self.by_cell @ self.cell_kinds),
            "pairs": _gram(self.by_cell),
        }
        self.arithmetic = np.outer(self.by_macs, self.by_macs)


class _Solved:
    """The regression in its dual form: as many unknowns as rows."""

    def __init__(self, design: _Design, ratios: Floats, freedoms: Freedoms) -> None:
        kernel = design.arithmetic + sum(getattr(freedoms, name) ** 2 * one for name, one in design.kernels.items())
        # Every row counts by its own size: a mode at a fifth of the cost must be right to a fifth of the error.
        scaled = kernel / np.outer(ratios, ratios)
        inverse = np.linalg.inv(scaled + freedoms.noise**2 * np.eye(len(ratios)))
        solution = inverse @ ((ratios - 1) / ratios)
        self.errors: Floats = -solution / np.diag(inverse)
        self.weights: Floats = solution / ratios


def _chosen(design: _Design, ratios: Floats) -> Freedoms:
    """The freedoms of least leave-one-out error, one at a time until none changes."""

    def error(one: Freedoms) -> float:
        return float(np.mean(_Solved(design, ratios, one).errors ** 2))

    best = Freedoms()
    least = error(best)
    for _ in range(SWEEPS):
        before = best
        for name in (*design.kernels, "noise"):
            for value in NOISES if name == "noise" else FREEDOMS:
                tried = replace(best, **{name: value})
                found = error(tried)
                if found < least * BETTER:
                    best, least = tried, found
        if best == before:
            break
    return best


def _cost(terms: Terms, design: _Design, weights: Floats, freedoms: Freedoms, full: float) -> AdditiveCost:
    """The terms that the dual solution stands for."""
    step = design.by_step.T @ weights
    step = freedoms.layers**2 * step + freedoms.kinds**2 * (design.step_kinds @ (design.step_kinds.T @ step))
    step = step * design.step_weights
    slope = float(design.by_macs @ weights)
    alone: Dict[str, Dict[int, float]] = {}
    for layer in terms.layers:
        alone[layer.name] = {1: 0.0}
    sums: Dict[str, float] = dict.fromkeys(alone, 0.0)
    for (layer, count), change in zip(design.steps, step):
        sums[layer.name] += float(change)
        arithmetic = slope * design.saved[layer.name] * (1 / count - 1)
        alone[layer.name][count] = round(full * (sums[layer.name] + arithmetic), DIGITS)

    cell = design.by_cell.T @ weights
    shared = freedoms.grouped**2 * (design.grouped_kinds @ (design.grouped_kinds.T @ cell))
    shared = shared + freedoms.pair_kinds**2 * (design.cell_kinds @ (design.cell_kinds.T @ cell))
    cell = (shared + freedoms.pairs**2 * cell) * design.cell_weights
    costs: List[Dict[str, float]] = [{} for _ in terms.pairs]
    for (number, one, other), extra in zip(design.cells, cell):
        costs[number][f"{one}.{other}"] = round(full * float(extra), DIGITS)
    pairs = tuple(PairTerm(pair.first, pair.second, found) for pair, found in zip(terms.pairs, costs))
    return AdditiveCost(full, alone, pairs)


def _cells(terms: Terms) -> List[Tuple[int, int, int]]:
    """(pair, groups of its first, groups of its second), both above 1."""
    levels = {layer.name: layer.groups[1:] for layer in terms.layers}
    return [
        (number, one, other)
        for number, pair in enumerate(terms.pairs)
        for one in levels[pair.first]
        for other in levels[pair.second]
    ]


def _both(terms: Terms, groups: Mapping[str, int], cell: Tuple[int, int, int]) -> bool:
    number, one, other = cell
    pair = terms.pairs[number]
    return groups[pair.first] == one and groups[pair.second] == other


def _indicator(names: Sequence[str]) -> Floats:
    """(names, distinct names): 1 where a name is that one."""
    columns = {name: number for number, name in enumerate(dict.fromkeys(names))}
    found = np.zeros((len(names), len(columns)))
    found[np.arange(len(names)), [columns[name] for name in names]] = 1.0
    return found


def _gram(rows: Floats) -> Floats:
    return np.asarray(rows @ rows.T, dtype=np.float64)
