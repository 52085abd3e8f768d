"""A fit finds the cost that made the rows, and its errors are what leaving a row out really gives."""

from itertools import islice
from typing import Dict, List, Tuple

import numpy as np
import pytest

from tests.runtime.boards import true_ms
from tests.supernets import bottlenecks, make_supernet, uniform
from wenet_runtime.table_design import configurations
from wenet_runtime.table_fit import Floats, Freedoms, _chosen, _Design, _Solved, fit
from wenet_runtime.table_terms import Terms, terms_of

SUPERNET = bottlenecks(32, 48, 32, 64)
FULL_MS = true_ms(SUPERNET, uniform(SUPERNET, 1))


def rows(count: int, noise: float = 0.0, seed: int = 0) -> Tuple[List[Dict[str, int]], List[float]]:
    drawn = list(islice(configurations(terms_of(SUPERNET), seed), count))
    random = np.random.default_rng(seed)
    return drawn, [true_ms(SUPERNET, one) / FULL_MS * (1 + noise * random.normal()) for one in drawn]


def unseen_errors(noise: float, count: int = 160) -> Floats:
    groups, ratios = rows(count, noise)
    cost = fit(terms_of(SUPERNET), groups, ratios, FULL_MS).cost
    others = [one for one in rows(100, seed=9)[0] if one not in groups]
    return np.abs([cost.of(one) / true_ms(SUPERNET, one) - 1 for one in others])


def test_an_additive_cost_with_shuffles_is_found_again() -> None:
    assert unseen_errors(0.0).max() < 0.02
    assert np.median(unseen_errors(0.0)) < 0.003


def test_noise_is_averaged_away() -> None:
    assert np.median(unseen_errors(0.03)) < 0.015


def test_the_full_network_costs_what_is_given() -> None:
    cost = fit(terms_of(SUPERNET), *rows(30), FULL_MS).cost
    assert cost.of(uniform(SUPERNET, 1)) == FULL_MS


def test_ratios_that_do_not_belong_to_their_configurations_are_not_predicted() -> None:
    groups, ratios = rows(100)
    mixed = list(np.random.default_rng(0).permutation(ratios))
    right, wrong = (fit(terms_of(SUPERNET), groups, one, 1.0).errors for one in (ratios, mixed))
    assert np.median(np.abs(wrong)) > 10 * np.median(np.abs(right))


def predicted(terms: Terms, groups: List[Dict[str, int]], ratios: Floats, freedoms: Freedoms) -> Floats:
    """The primal problem solved plainly: every coefficient an unknown, weighted least squares with penalties."""
    design = _Design(terms, groups)
    columns = np.hstack(
        [
            design.by_macs[:, None],
            freedoms.kinds * design.by_step @ design.step_kinds,
            freedoms.layers * design.by_step,
            freedoms.grouped * design.by_cell @ design.grouped_kinds,
            freedoms.pair_kinds * design.by_cell @ design.cell_kinds,
            freedoms.pairs * design.by_cell,
        ]
    )
    known = ~np.isnan(ratios)
    weighted = columns[known] / ratios[known, None]
    target = (ratios[known] - 1) / ratios[known]
    normal = weighted.T @ weighted + freedoms.noise**2 * np.eye(columns.shape[1])
    found: Floats = 1 + columns @ np.linalg.solve(normal, weighted.T @ target)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_terms_and_the_errors_equal_a_plain_solution_row_by_row(seed: int) -> None:
    supernet = make_supernet()
    terms = terms_of(supernet)
    random = np.random.default_rng(seed)
    groups = list(islice(configurations(terms, seed), 25))
    ratios = random.uniform(0.2, 1.0, len(groups))
    found = fit(terms, groups, list(ratios), 7.0)
    freedoms = _chosen(_Design(terms, groups), ratios)
    plain = predicted(terms, groups, ratios, freedoms)
    assert [found.cost.of(one) for one in groups] == pytest.approx(7.0 * plain, rel=1e-6)
    for left_out in range(len(groups)):
        others = ratios.copy()
        others[left_out] = np.nan
        alone = predicted(terms, groups, others, freedoms)[left_out]
        assert found.errors[left_out] == pytest.approx(alone / ratios[left_out] - 1, abs=1e-7)


def test_the_chosen_freedoms_are_better_than_those_it_starts_from() -> None:
    groups, ratios = rows(80, 0.02)
    design = _Design(terms_of(SUPERNET), groups)
    known = np.array(ratios)
    errors = [_Solved(design, known, one).errors for one in (_chosen(design, known), Freedoms())]
    assert np.mean(errors[0] ** 2) <= np.mean(errors[1] ** 2)


def test_layers_of_one_kind_help_each_other_where_rows_are_few() -> None:
    supernet = bottlenecks(*[32] * 8)
    terms, full_ms = terms_of(supernet), true_ms(supernet, uniform(supernet, 1))
    drawn = list(islice(configurations(terms, 0), 80))
    ratios = [true_ms(supernet, one) / full_ms for one in drawn]
    cost = fit(terms, drawn[:20], ratios[:20], 1.0).cost
    errors = [abs(cost.of(one) / ratio - 1) for one, ratio in zip(drawn[20:], ratios[20:])]
    assert np.median(errors) < 0.02


def test_the_same_rows_give_the_same_bits() -> None:
    groups, ratios = rows(50, 0.02)
    assert fit(terms_of(SUPERNET), groups, ratios, 3.0).cost == fit(terms_of(SUPERNET), groups, ratios, 3.0).cost


def test_one_row_is_enough_for_a_first_guess() -> None:
    groups, ratios = rows(1)
    found = fit(terms_of(SUPERNET), groups, ratios, 1.0)
    assert len(found.errors) == 1
    assert 0 < found.cost.of(uniform(SUPERNET, 4)) < 1.5
