"""The mix of modes, against the linear programme solved by trying all pairs."""

import itertools
import math
import random
from typing import List, Sequence

import pytest

from wenet_runtime.energy_plan import HullPoint, Point, above_idle_mj, known, mix, upper_hull


def drawn(rng: random.Random) -> List[HullPoint]:
    """Up to 12 modes; coarse figures make ties and collinear points common."""
    fine = rng.random() < 0.5

    def draw() -> float:
        return rng.uniform(1, 1000) if fine else float(rng.randint(1, 8))

    return [HullPoint(f"m{number}", draw() / 1000, draw()) for number in range(rng.randint(1, 12))]


def optimum(points: Sequence[HullPoint], mean_mj: float) -> float:
    """The best mean accuracy of shares of all modes whose mean energy is at most `mean_mj`.

    An optimum of two constraints has at most two shares above 0, so all pairs are tried.
    """
    best = max((one.accuracy for one in points if one.energy_mj <= mean_mj), default=-math.inf)
    for low, high in itertools.permutations(points, 2):
        if low.energy_mj <= mean_mj < high.energy_mj:
            share = (mean_mj - low.energy_mj) / (high.energy_mj - low.energy_mj)
            best = max(best, low.accuracy + share * (high.accuracy - low.accuracy))
    return best


def test_the_mix_of_two_modes_is_the_optimum_over_all_modes() -> None:
    for seed in range(400):
        rng = random.Random(seed)
        points = drawn(rng)
        cheapest = min(one.energy_mj for one in points)
        for mean_mj in [rng.uniform(cheapest, 1200) for _ in range(5)] + [one.energy_mj for one in points]:
            found = mix(upper_hull(points), mean_mj)
            assert found.accuracy == pytest.approx(optimum(points, mean_mj), abs=1e-9)
            assert found.energy_mj <= mean_mj * (1 + 1e-9)
            assert 0.0 <= found.share < 1.0


def test_a_mode_below_the_line_between_two_others_is_in_no_mix() -> None:
    points = [HullPoint("a", 0.6, 100.0), HullPoint("b", 0.62, 200.0), HullPoint("c", 0.7, 300.0)]
    assert [one.mode_id for one in upper_hull(points)] == ["a", "c"]
    half = mix(upper_hull(points), 200.0)
    assert (half.low.mode_id, half.high.mode_id, half.share) == ("a", "c", 0.5)
    assert half.accuracy > 0.62


def test_the_hull_ascends_and_gains_ever_less() -> None:
    for seed in range(100):
        hull = upper_hull(drawn(random.Random(seed)))
        steps = [
            ((b.accuracy - a.accuracy) / (b.energy_mj - a.energy_mj), b.energy_mj - a.energy_mj)
            for a, b in zip(hull, hull[1:])
        ]
        assert all(rise > 0 and run > 0 for rise, run in steps)
        assert all(one[0] > other[0] for one, other in zip(steps, steps[1:]))


def test_beyond_its_ends_a_mix_is_the_cheapest_or_the_most_accurate_mode() -> None:
    hull = upper_hull([HullPoint("a", 0.6, 100.0), HullPoint("b", 0.7, 300.0)])
    for mean_mj, mode_id in ((-math.inf, "a"), (-5.0, "a"), (99.0, "a"), (300.0, "b"), (math.inf, "b")):
        found = mix(hull, mean_mj)
        assert found.low.mode_id == found.high.mode_id == mode_id
        assert found.share == 0.0


def test_only_possible_figures_are_known() -> None:
    bad = [None, 0.0, -1.0, math.nan, math.inf]
    points = [Point(f"bad{number}", 0.7, energy) for number, energy in enumerate(bad)]
    points += [Point("no accuracy", math.nan, 5.0), Point("good", 0.7, 5.0)]
    assert known(points) == [HullPoint("good", 0.7, 5.0)]
    assert upper_hull(known(points[:3])) == ()


def test_energy_above_idle_is_none_when_unknown_or_impossible() -> None:
    assert above_idle_mj(500.0, 100.0, 2.0) == 300.0
    for energy_mj in (None, 200.0, 10.0, math.nan, math.inf):
        assert above_idle_mj(energy_mj, 100.0, 2.0) is None
