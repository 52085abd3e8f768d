"""The choice of modes worth offering: what is not measurably cheaper goes, by name and with figures."""

import math
from fractions import Fraction
from typing import Any, List, Optional

import numpy as np
import pytest
from numpy.typing import NDArray

from wenet_runtime.selection import DOUBT, GAIN, Candidate, chance, ratio, select

ROUNDS = 60


def mode(mode_id: str, accuracy: float, ms: float, energy_mj: Optional[float] = None, noise: float = 0.01) -> Candidate:
    """A mode whose times scatter a little about `ms`, otherwise than those of modes of another name."""
    random = np.random.default_rng(sum(map(ord, mode_id)))
    return Candidate(mode_id, accuracy, ms * random.normal(1, noise, ROUNDS), energy_mj)


def times(*values: float) -> NDArray[Any]:
    return np.array(values, float)


def test_modes_come_from_the_most_accurate_to_the_fastest() -> None:
    kept, left = select([mode("fast", 0.8, 1), mode("full", 0.95, 9), mode("mid", 0.9, 4)], 8)
    assert (kept, left) == (["full", "mid", "fast"], [])


@pytest.mark.parametrize(("ms", "stays"), [(9.0, True), (9.4, True), (9.6, False), (10.0, False), (12.0, False)])
def test_a_mode_stays_only_if_it_takes_measurably_less_time_than_every_more_accurate_one(
    ms: float, stays: bool
) -> None:
    kept, left = select([mode("full", 0.95, 10.0), mode("m1", 0.9, ms)], 8)
    assert (kept == ["full", "m1"]) == stays
    assert [one.id for one in left] == ([] if stays else ["m1"])


def test_the_reason_names_the_more_accurate_mode_with_figures() -> None:
    _, left = select([mode("full", 0.95, 10.0), mode("m2", 0.93, 5.0), mode("m1", 0.9, 6.0)], 8)
    assert left[0].id == "m1"
    assert left[0].why.startswith(
        "not measurably faster than m2, which is more accurate (0.9300 against 0.9000): it takes 1."
    )
    assert left[0].why.endswith("of its time (below 0.95 counts), sign test p = 1 (below 0.01 counts)")


def test_a_mode_is_compared_with_those_that_stay_only() -> None:
    # Each is about 3 % faster than the one before: the second is left, the third is 6 % faster than the first.
    kept, left = select([mode("a", 0.9, 10, noise=0), mode("b", 0.8, 9.7, noise=0), mode("c", 0.7, 9.4, noise=0)], 8)
    assert kept == ["a", "c"]
    assert [one.id for one in left] == ["b"]


def test_a_difference_that_the_samples_do_not_prove_is_none() -> None:
    random = np.random.default_rng(3)
    full = Candidate("full", 0.9, random.uniform(5, 15, 9))
    other = Candidate("m1", 0.8, full.samples_ms * np.array([0.9] * 6 + [1.2] * 3))
    assert ratio(other.samples_ms, full.samples_ms) < GAIN
    assert chance(other.samples_ms, full.samples_ms) > DOUBT
    assert select([full, other], 8)[0] == ["full"]


def test_pairs_show_what_medians_would_hide() -> None:
    # The machine's speed changes tenfold between rounds, for both modes alike.
    drift = np.linspace(1, 10, ROUNDS)
    full, other = Candidate("full", 0.9, 10 * drift), Candidate("m1", 0.8, 9 * drift)
    assert select([full, other], 8)[0] == ["full", "m1"]


def test_a_mode_that_takes_less_energy_stays_though_it_is_no_faster() -> None:
    full = mode("full", 0.95, 10.0, 50.0)
    assert select([full, mode("m1", 0.9, 10.0, 40.0)], 8)[0] == ["full", "m1"]
    kept, left = select([full, mode("m1", 0.9, 10.0, 49.0)], 8)
    assert kept == ["full"]
    assert left[0].why.startswith("not measurably faster or more frugal than full")
    assert left[0].why.endswith(", 49 of its 50 mJ")


def test_energy_counts_only_where_both_are_known() -> None:
    assert select([mode("full", 0.95, 10.0, 50.0), mode("m1", 0.9, 10.0)], 8)[0] == ["full"]
    assert select([mode("full", 0.95, 10.0), mode("m1", 0.9, 10.0, 1.0)], 8)[0] == ["full"]


def test_of_equally_accurate_modes_the_faster_stays() -> None:
    kept, left = select([mode("slow", 0.9, 10), mode("fast", 0.9, 5)], 8)
    assert kept == ["fast"]
    assert "than fast, which is as accurate" in left[0].why


def test_too_many_lose_the_ones_that_are_missed_least_but_neither_end() -> None:
    modes = [mode("full", 0.95, 20), mode("a", 0.94, 10), mode("b", 0.939, 9.4), mode("c", 0.9, 5), mode("d", 0.7, 4)]
    kept, left = select(modes, 3)
    assert kept == ["full", "c", "d"] or kept == ["full", "a", "d"]
    assert len(left) == 2
    assert all("but 3 modes were asked for and this one is missed least" in one.why for one in left)
    assert select(modes, 2)[0] == ["full", "d"]
    assert select(modes, 99)[0] == ["full", "a", "b", "c", "d"]


def test_the_reason_names_a_mode_that_is_offered_where_one_qualifies() -> None:
    # m1 loses most to b and less to c; both are more accurate, but of the two only c is offered.
    modes = [mode("full", 0.95, 20), mode("c", 0.94, 8), mode("b", 0.901, 7.5), mode("m1", 0.9, 8.2)]
    modes.append(mode("d", 0.7, 4))
    kept, left = select(modes, 3)
    assert kept == ["full", "c", "d"]
    why = {one.id: one.why for one in left}
    assert why["m1"].startswith("not measurably faster than c, which is more accurate (0.9400 against 0.9000): it")


def test_a_reason_that_names_a_mode_that_is_not_offered_says_so() -> None:
    modes = [mode("full", 0.95, 20), mode("b", 0.94, 10), mode("m1", 0.93, 10.1), mode("d", 0.7, 4)]
    kept, left = select(modes, 2)
    assert kept == ["full", "d"]
    why = {one.id: one.why for one in left}
    assert "than b, which is more accurate (0.9400 against 0.9300) and which is not offered either: it" in why["m1"]


def test_energy_is_a_third_coordinate_where_all_have_one() -> None:
    # Without energy, b adds next to nothing; by energy it stands alone.
    modes = [
        mode("full", 0.95, 10, 100),
        mode("a", 0.90, 5.0, 99),
        mode("b", 0.82, 4.8, 10),
        mode("c", 0.80, 4.0, 9.5),
    ]
    assert select(modes, 3)[0] == ["full", "b", "c"]
    without = [Candidate(one.id, one.accuracy, one.samples_ms) for one in modes]
    assert select(without, 3)[0] == ["full", "a", "c"]


def test_what_must_stay_stays_however_slow() -> None:
    modes = [mode("small", 0.96, 5), mode("full", 0.95, 20), mode("tiny", 0.9, 1)]
    assert select(modes, 2)[0] == ["small", "tiny"]
    assert select(modes, 2, always=["full"])[0] == ["small", "full", "tiny"]


def test_one_mode_or_none_is_itself() -> None:
    assert select([mode("full", 0.9, 1)], 2) == (["full"], [])
    assert select([], 2) == ([], [])


@pytest.mark.parametrize(("pairs", "below"), [(1, 0), (1, 1), (7, 5), (20, 20), (60, 33), (60, 0)])
def test_the_sign_test_is_the_binomial_distribution_s_tail(pairs: int, below: int) -> None:
    one = times(*[0.5] * below, *[2.0] * (pairs - below))
    exact = Fraction(sum(math.comb(pairs, count) for count in range(below, pairs + 1)), 2**pairs)
    assert chance(one, np.ones(pairs)) == pytest.approx(float(exact), rel=1e-9)


def test_equal_pairs_say_nothing_in_the_sign_test() -> None:
    assert chance(np.ones(50), np.ones(50)) == 1.0
    assert chance(times(0.5, 1, 1, 1), np.ones(4)) == pytest.approx(0.5)


def test_the_sign_test_takes_any_number_of_pairs() -> None:
    random = np.random.default_rng(0)
    assert chance(np.full(100_000, 0.9), np.ones(100_000)) == 0.0
    assert 0.001 < chance(random.normal(0, 1, 100_000), np.zeros(100_000)) < 0.999


BAD: List[Any] = [
    (([mode("a", 0.9, 1)], 1), {}, "keep is 1, but must be at least 2"),
    (([mode("a", 0.9, 1), mode("a", 0.8, 1)], 2), {}, "an id of its own"),
    (([mode("a", 0.9, 1)], 2), {"always": ["b"]}, "always names b"),
    (([mode("a", 0.9, 1), Candidate("b", 0.8, np.ones(3))], 2), {}, "in the same rounds"),
    (([Candidate("b", 0.8, np.ones(0))], 2), {}, "in the same rounds"),
]


@pytest.mark.parametrize(("given", "more", "said"), BAD)
def test_what_cannot_be_compared_is_refused(given: Any, more: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        select(*given, **more)
