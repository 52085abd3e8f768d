import json
from dataclasses import replace

import pytest

from benchmarks.simulator.device import paper
from benchmarks.simulator.disturbances import steps
from benchmarks.simulator.families import arrival_cases, cases
from benchmarks.simulator.players import OURS, PLAYERS, SMALLEST
from benchmarks.simulator.players.static import Static
from benchmarks.simulator.study import clear, play_case
from benchmarks.simulator.world import IN_TIME, play


@pytest.fixture(scope="module")
def outcome():
    case = next(case for case in cases(paper()) if case.family == "steps")
    return play_case(replace(case, disturbance=lambda duration_s, period_s: steps(duration_s, 10)), range(2), 200)


def test_every_player_and_every_static_mode_plays_every_seed(outcome):
    assert set(PLAYERS) | {f"static g{groups}" for groups in (1, 2, 4, 8)} == set(outcome.scores)
    assert all(len(scores) == 2 for scores in outcome.scores.values())


def test_nobody_exceeds_the_clairvoyant_where_it_is_a_bound(outcome):
    assert outcome.case.bounded
    for scores in outcome.scores.values():
        for score, attainment in zip(scores, outcome.oracle_attainment, strict=True):
            assert score.attainment <= attainment
            assert not score.behind < -1e-9
            assert score.regret >= -1e-9


def test_what_the_clairvoyant_can_run_is_no_better_than_its_bound(outcome):
    assert outcome.oracle_least <= outcome.oracle_attainment[0]


def test_a_row_is_plain_json_with_misses_after_steps(outcome):
    row = outcome.row()
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["players"][OURS]["after_steps"]["steps"] >= 2


def test_a_clear_budget_is_the_tightest_at_which_the_smallest_mode_misses_nothing():
    case = arrival_cases(paper(), (0.5,))[2]
    found = clear(case, range(2), 400)
    assert found is not None
    assert all((play(found.world(seed, 400), Static(0)).outcome == IN_TIME).all() for seed in range(2))
    tighter = found.with_budget(found.budgets[0][0] / 2, "half")
    assert not all((play(tighter.world(seed, 400), Static(0)).outcome == IN_TIME).all() for seed in range(2))
    assert play_case(found, range(2), 400).possible
    assert SMALLEST in PLAYERS
