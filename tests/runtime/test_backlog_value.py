"""What the future is worth behind so much work: against a plain reference, and against policies that do not look."""

import random
from typing import Any, List

import numpy as np
import pytest

from wenet_runtime.backlog_value import BINS, GAPS, BacklogValue, Traffic, solve

MODES = {"medians_ms": [200.0, 130.0, 85.0, 43.0], "accuracies": [0.76, 0.756, 0.704, 0.642]}


def traffic(gaps_ms: List[float], **members: Any) -> Traffic:
    given = {**MODES, "budgets_ms": [400.0], "bounds_ms": [1.02 * ms for ms in MODES["medians_ms"]], "answer": 5.0}
    return Traffic(gaps_ms=gaps_ms, **{**given, **members})


def exponential(mean_ms: float, count: int = 2000, seed: int = 0) -> List[float]:
    draw = random.Random(seed)
    return [draw.expovariate(1 / mean_ms) for _ in range(count)]


def test_it_is_the_fixed_point_of_a_plain_value_iteration() -> None:
    one = traffic(exponential(120.0, 300))
    value = None
    for _ in range(20):  # it goes on from where it was
        value = solve(one, value)
    assert value is not None
    gaps = np.quantile(one.gaps_ms, (np.arange(GAPS) + 0.5) / GAPS)
    grid = np.linspace(0, 400.0, BINS)
    ahead = np.array([np.mean(np.interp(np.maximum(work - gaps, 0.0), grid, value.values)) for work in grid])

    def answered(work: float, at: int) -> float:
        if work + one.bounds_ms[at] > 400.0:
            return -np.inf
        return float(np.interp(work + one.medians_ms[at], grid, ahead)) + one.accuracies[at] + one.answer

    again = np.array([max(ahead[bin_], *(answered(work, at) for at in range(4))) for bin_, work in enumerate(grid)])
    assert again - again[0] == pytest.approx(value.values, abs=2e-3)


def test_more_work_is_never_worth_more_not_even_beyond_the_largest_budget() -> None:
    behind = solve(traffic(exponential(100.0))).behind(0.0)
    worths = [behind.worth(work_ms) for work_ms in range(0, 1000, 7)]
    assert all(later <= before + 1e-9 for before, later in zip(worths, worths[1:]))


def test_a_single_long_budget_changes_nothing_for_all_others() -> None:
    gaps = exponential(120.0)
    without = solve(traffic(gaps, budgets_ms=[400.0] * 2000))
    one = solve(traffic(gaps, budgets_ms=[400.0] * 1999 + [600_000.0]))
    assert one.step_ms == without.step_ms
    assert one.values == pytest.approx(without.values)


def test_where_the_next_request_is_far_away_work_costs_nothing() -> None:
    behind = solve(traffic([10_000.0] * 100)).behind(0.0)
    assert behind.worth(200.0) == pytest.approx(behind.worth(0.0), abs=1e-6)


def test_right_after_an_arrival_bursts_make_work_dearer_than_in_a_pause() -> None:
    draw = random.Random(1)
    bursts = [draw.expovariate(1 / 5.0) if draw.random() < 0.7 else draw.expovariate(1 / 800.0) for _ in range(2000)]
    value = solve(traffic(bursts))
    just, late = value.behind(0.0), value.behind(500.0)
    assert just.worth(0.0) - just.worth(200.0) > 2 * (late.worth(0.0) - late.worth(200.0))


def played(gaps_ms: List[float], choose: Any) -> float:
    """Mean accuracy over all requests of a queue in order of arrival, a miss counting 0."""
    work_ms, total = 0.0, 0.0
    for gap_ms in gaps_ms:
        work_ms = max(0.0, work_ms - gap_ms)
        at = choose(work_ms)
        if work_ms + 1.02 * MODES["medians_ms"][at] <= 400.0:
            work_ms += MODES["medians_ms"][at]
            total += MODES["accuracies"][at]
    return total / len(gaps_ms)


@pytest.mark.parametrize("mean_ms", [70.0, 120.0, 250.0])
def test_looking_ahead_beats_every_mode_alone_and_taking_the_best_that_fits(mean_ms: float) -> None:
    behind = solve(traffic(exponential(mean_ms, seed=2), answer=1.0)).behind(0.0)

    def ahead(work_ms: float) -> int:
        fits = [at for at in range(4) if work_ms + 1.02 * MODES["medians_ms"][at] <= 400.0] or [3]
        return max(fits, key=lambda at: MODES["accuracies"][at] + behind.worth(work_ms + MODES["medians_ms"][at]))

    def greedy(work_ms: float) -> int:
        return next((at for at in range(4) if work_ms + 1.02 * MODES["medians_ms"][at] <= 400.0), 3)

    gaps = exponential(mean_ms, 20_000, seed=3)
    best_alone = max(played(gaps, lambda work_ms, at=at: at) for at in range(4))
    assert played(gaps, ahead) > best_alone + 0.005
    assert played(gaps, ahead) > played(gaps, greedy) + 0.005


def test_it_goes_on_from_another_grid() -> None:
    before = solve(traffic(exponential(100.0)))
    after = solve(traffic(exponential(100.0), budgets_ms=[800.0]), before)
    assert isinstance(after, BacklogValue)
    assert after.step_ms == pytest.approx(2 * before.step_ms)
    assert np.isfinite(after.values).all()


@pytest.mark.parametrize("gaps_ms", [[0.0] * 50, [1e9] * 50, [0.0, 1e9] * 25])
@pytest.mark.parametrize("budgets_ms", [[0.0], [1e-3, 6e5], [50.0]])
def test_absurd_traffic_gives_finite_worths(gaps_ms: List[float], budgets_ms: List[float]) -> None:
    behind = solve(traffic(gaps_ms, budgets_ms=budgets_ms)).behind(1e12)
    assert all(np.isfinite(behind.worth(work_ms)) for work_ms in (0.0, 1e-9, 100.0, 1e9))
