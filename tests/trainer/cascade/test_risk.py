import itertools
import math

import numpy as np
import pytest

from wenet_trainer.cascade.errors import CalibrationError
from wenet_trainer.cascade.risk import MOST, best_bet, least_images, p_value

EPSILON = 0.01


def draws(rng, mean, differing, shape):
    """Losses of 1, 0 or -1 with this mean; a share of them differs from 0."""
    ups, downs = (differing + mean) / 2, (differing - mean) / 2
    return rng.choice([1, -1, 0], p=[ups, downs, 1 - differing], size=shape)


def test_it_is_one_over_the_greatest_capital_of_a_gambler():
    rng = np.random.default_rng(0)
    for _ in range(50):
        losses, bet = draws(rng, 0.0, 0.2, int(rng.integers(1, 300))), float(rng.uniform(0, MOST))
        capital, greatest = 1.0, 1.0
        for loss in losses:
            capital *= 1 + bet * (EPSILON - int(loss))
            greatest = max(greatest, capital)
        assert p_value(losses, epsilon=EPSILON, bet=bet) == pytest.approx(1 / greatest)


@pytest.mark.parametrize("mean", [0.2, 0.3])
def test_the_chance_of_a_small_p_is_no_greater_than_p_over_all_outcomes(mean):
    # Every outcome of six images, with its exact probability, where the mean loss is 0.2 (the hypothesis) or more.
    outcomes = list(itertools.product((1, -1, 0), repeat=6))
    for differing, bet in itertools.product((0.35, 0.6, 1.0), (0.1, 0.5, MOST)):
        chance = {1: (differing + mean) / 2, -1: (differing - mean) / 2, 0: 1 - differing}
        found = [(p_value(np.array(one), epsilon=0.2, bet=bet), math.prod(chance[x] for x in one)) for one in outcomes]
        for level in {p for p, _ in found}:
            assert sum(weight for p, weight in found if p <= level) <= level + 1e-12


def test_a_gambler_who_chooses_the_order_by_the_losses_breaks_that():
    rng = np.random.default_rng(1)
    wrong = sum(
        p_value(np.sort(losses), epsilon=EPSILON, bet=0.5) <= 0.05 for losses in draws(rng, EPSILON, 0.05, (100, 500))
    )
    assert wrong > 50


def test_many_images_without_loss_are_convincing_and_as_many_lost_as_allowed_are_not():
    rng = np.random.default_rng(2)
    bet = best_bet(10, 1000, 20_000, 0.01)
    assert p_value(draws(rng, 0.0, 0.01, 20_000), epsilon=EPSILON, bet=bet) < 1e-6
    assert p_value(draws(rng, EPSILON, 0.02, 20_000), epsilon=EPSILON, bet=bet) > 0.01


def test_the_bet_chosen_from_other_images_is_near_the_best_there_is():
    rng = np.random.default_rng(3)
    losses = draws(rng, 0.002, 0.02, (200, 5000))
    chosen = best_bet(20, 1000, 5000, 0.05)
    passed = {
        bet: np.mean([p_value(one, epsilon=EPSILON, bet=bet) <= 0.05 for one in losses])
        for bet in (chosen, *np.linspace(0.02, MOST, 23))
    }
    assert passed[chosen] > max(passed.values()) - 0.1


def test_the_least_number_of_images_is_the_least():
    for epsilon, alpha in ((0.003, 0.05), (0.003, 0.01), (0.05, 0.1)):
        least = least_images(epsilon, alpha)
        assert p_value(np.zeros(least), epsilon=epsilon, bet=MOST) <= alpha
        assert p_value(np.zeros(least - 1), epsilon=epsilon, bet=MOST) > alpha


@pytest.mark.parametrize(
    ("losses", "bet"), [([], 0.5), ([2.0], 0.5), ([math.nan], 0.5), ([0.0], 0.95), ([0.0], -0.1), ([0.0], math.nan)]
)
def test_what_no_gambler_can_bet_on_is_refused(losses, bet):
    with pytest.raises(CalibrationError, match="losses with bets of"):
        p_value(np.array(losses), epsilon=EPSILON, bet=bet)
