"""The simulated board and its oracles, against plainer ways."""

import itertools
import math
import random

import numpy as np
import pytest

from benchmarks.energy_world import Run, arrivals, draw_bias, least_mj, modes, oracle_mj, ramp, serve, true_points
from wenet_runtime.energy_plan import HullPoint
from wenet_runtime.power_budget import PowerBudget

HULL = (HullPoint("a", 0.6, 100.0), HullPoint("b", 0.7, 300.0), HullPoint("c", 0.72, 900.0))


def test_energies_are_above_idle_and_fall_with_more_groups() -> None:
    energies = [one.above_mj for one in modes()]
    assert energies == sorted(energies, reverse=True)
    assert energies[0] == pytest.approx((10.0 - 2.0) * 203.38)


@pytest.mark.parametrize("squared_cv", [1.0, 4.0])
def test_arrivals_have_the_rate_and_the_burstiness(squared_cv: float) -> None:
    times = np.array(arrivals(lambda _: 3.0, 6000.0, squared_cv, random.Random(1)))
    gaps = np.diff(times)
    assert (gaps >= 0).all()
    assert len(times) / 6000.0 == pytest.approx(3.0, rel=0.05)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(squared_cv, rel=0.1)


def test_arrivals_follow_a_ramp() -> None:
    times = np.array(arrivals(ramp, 1200.0, 1.0, random.Random(2)))
    early, late = ((times < 120).sum(), ((times > 540) & (times < 660)).sum())
    assert (ramp(0.0), ramp(600.0), ramp(1200.0)) == (1.0, 6.0, 1.0)
    assert early < 0.4 * late


def test_the_least_energy_is_the_optimum_of_all_fractions() -> None:
    accuracy = 0.68
    grid = [(x / 100, y / 100) for x, y in itertools.product(range(101), repeat=2) if x + y <= 100]
    mixes = [(1 - b - c, b, c) for b, c in grid]
    least = min(
        sum(share * one.energy_mj for share, one in zip(shares, HULL, strict=True))
        for shares in mixes
        if sum(share * one.accuracy for share, one in zip(shares, HULL, strict=True)) >= accuracy - 1e-12
    )
    assert least_mj(HULL, 50.0, accuracy) == pytest.approx(50.0 * least, rel=1e-6)


def test_the_oracle_of_alike_windows_takes_the_least_energy() -> None:
    rows, most = np.full(4, 60.0), np.full(4, 60.0 * 400.0)
    assert oracle_mj(HULL, rows, most, 0.69) == pytest.approx(least_mj(HULL, 240.0, 0.69), rel=1e-6)


def test_the_oracle_shares_each_window_s_energy_among_its_rows() -> None:
    rows, most = np.array([10.0, 40.0]), np.array([4000.0, 4000.0])
    # At the whole budget: 400 mJ a row in the first window, 100 in the second.
    accuracy = (10 * (0.7 + 0.02 / 6) + 40 * 0.6) / 50
    assert oracle_mj(HULL, rows, most, accuracy) == pytest.approx(8000.0, rel=1e-6)


def test_an_accuracy_out_of_the_oracle_s_reach_is_an_error() -> None:
    with pytest.raises(ValueError, match="the oracle reaches"):
        oracle_mj(HULL, np.array([10.0]), np.array([1e4]), 0.8)


def test_a_run_s_energy_is_split_where_a_window_ends() -> None:
    began, ended = np.array([0.5, 1.5]), np.array([1.0, 2.5])
    done = Run(began, began, ended, np.array([0.7, 0.7]), np.array([10.0, 20.0]), ["a", "a"])
    assert done.above_in(np.array([0.0, 1.0, 2.0, 3.0])).tolist() == [10.0, 10.0, 10.0]


def test_rows_are_served_in_order_and_one_at_a_time() -> None:
    offered, rng = modes(), random.Random(3)
    bias = draw_bias(offered, rng)
    times = arrivals(lambda _: 4.0, 200.0, 4.0, rng)
    done = serve(PowerBudget(4.5, 60.0, 2.0), offered, bias, times, lambda energy_mj: energy_mj)
    assert len(done.began) == len(times)
    assert (done.began >= done.arrived).all()
    assert (done.began[1:] >= done.ended[:-1]).all()
    assert all(0.8 <= one <= 1.25 for one in bias.values())
    assert math.isfinite(true_points(offered, bias)[0].energy_mj)
