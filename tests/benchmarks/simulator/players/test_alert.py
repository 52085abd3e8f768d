from statistics import NormalDist

import pytest

from benchmarks.simulator.players.alert import Alert, SlowdownFilter
from tests.benchmarks.simulator.worlds import setup


def test_the_filter_follows_its_formula():
    one = SlowdownFilter()
    q, p, k, y, mu = 0.1, 0.1, 0.5, 0.0, 1.0
    for ratio in (1.0, 1.4, 1.9, 1.2, 1.1):
        one.observe(ratio)
        q = max(0.1, 0.3 * q + 0.7 * (k * y) ** 2)
        prior = p + q
        k = prior / (prior + 0.001)
        y = ratio - mu
        mu, p = mu + k * y, (1 - k) * prior
        assert (one.mean, one.variance) == (pytest.approx(mu), pytest.approx(prior))


def test_the_probability_is_a_gaussians():
    one = SlowdownFilter()
    one.observe(1.3)
    expected = NormalDist(one.mean, one.variance**0.5).cdf(50 / 30)
    assert one.meets(50, 30) == pytest.approx(expected)


def test_it_takes_the_most_accurate_mode_that_reaches_the_attainment():
    player = Alert(setup(), 0.99)
    assert player.choose(30 * 1.5, 1) == 0  # Φ(0.5 / 0.316) = 0.94
    assert player.choose(30 * 2.0, 1) == 1


def test_where_none_reaches_it_the_likeliest_is_taken():
    assert Alert(setup(), 0.99).choose(5, 1) == 0


def test_by_expected_accuracy_a_likely_mode_may_be_risked():
    assert Alert(setup(), None).choose(30 * 1.5, 1) == 1
    assert Alert(setup(), None).choose(30 * 0.9, 1) == 0


def test_a_slower_device_makes_it_choose_smaller():
    player = Alert(setup(), 0.99)
    player.arrive(0, 0.0, 60, 1)
    assert player.next(0.0) == ((0,), 1)
    player.finished((0,), 1, 0.0, 0.060, None)
    player.arrive(1, 1.0, 60, 1)
    assert player.next(1.0) == ((1,), 0)
