from fractions import Fraction
from itertools import product
from math import comb, sqrt

import numpy as np
import pytest

from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.paired import compare


def answers(both, ours, theirs, neither):
    one = np.repeat([True, True, False, False], [both, ours, theirs, neither])
    other = np.repeat([True, False, True, False], [both, ours, theirs, neither])
    return one, other


@pytest.mark.parametrize("seed", range(5))
def test_the_difference_and_its_error_are_the_closed_form(seed):
    both, b, c, neither = np.random.default_rng(seed).integers(0, 60, 4)
    n = both + b + c + neither
    found = compare(*answers(both, b, c, neither))
    assert found.value == pytest.approx((b - c) / n)
    assert found.standard_error == pytest.approx(sqrt(b + c - (b - c) ** 2 / n) / n)
    assert (found.only_ours, found.only_theirs) == (b, c)


@pytest.mark.parametrize(("b", "c"), list(product((0, 1, 4, 9), (0, 2, 9))))
def test_p_is_the_exact_test_of_mcnemar(b, c):
    tail = sum(Fraction(comb(b + c, k), 2 ** (b + c)) for k in range(min(b, c) + 1))
    assert compare(*answers(5, b, c, 3)).p == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-12)


def test_p_holds_for_thousands_of_images():
    scipy_stats = pytest.importorskip("scipy.stats")
    found = compare(*answers(4000, 1100, 1010, 3000)).p
    assert found == pytest.approx(scipy_stats.binomtest(1010, 2110).pvalue, rel=1e-9)


def test_swapping_the_two_turns_the_sign_alone():
    one, other = answers(10, 7, 2, 4)
    there, back = compare(one, other), compare(other, one)
    assert there.value == -back.value
    assert (there.p, there.standard_error) == (back.p, back.standard_error)


def test_equal_answers_differ_by_nothing():
    found = compare(*answers(10, 0, 0, 10))
    assert (found.value, found.standard_error, found.p) == (0.0, 0.0, 1.0)


def test_copies_of_images_are_worth_no_more_than_the_unique_ones():
    one, other = answers(30, 9, 3, 20)
    alone = compare(one, other)
    shuffled = np.random.default_rng(0).permutation(4 * len(one))
    origins = np.repeat(np.arange(len(one)), 4)[shuffled]
    copied = compare(np.repeat(one, 4)[shuffled], np.repeat(other, 4)[shuffled], origins)
    assert copied.value == pytest.approx(alone.value)
    assert copied.standard_error == pytest.approx(alone.standard_error)
    assert copied.p == alone.p
    unaware = compare(np.repeat(one, 4), np.repeat(other, 4))
    assert unaware.standard_error == pytest.approx(alone.standard_error / 2)
    assert unaware.p < alone.p


def test_originals_that_are_all_different_change_nothing():
    one, other = answers(30, 9, 3, 20)
    assert compare(one, other, np.arange(len(one)) * 3) == compare(one, other)


def test_equally_accurate_configurations_are_seldom_told_apart_though_views_go_together():
    rng, told = np.random.default_rng(0), 0
    for _ in range(400):
        chance = np.repeat(rng.choice([0.3, 0.95], 100), 3)
        one, other = (np.repeat(rng.random(100) < chance[::3], 3) for _ in range(2))
        told += compare(one, other, np.repeat(np.arange(100), 3)).p < 0.05
    assert told / 400 <= 0.05


def test_answers_to_different_images_are_refused():
    with pytest.raises(ExploreError, match=r"shapes \(3,\) and \(4,\)"):
        compare(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ExploreError, match="at least one"):
        compare(np.ones(0, bool), np.ones(0, bool))
