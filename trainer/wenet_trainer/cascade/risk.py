"""How sure it is that a cascade loses less than it may: a p-value by betting, whatever the images' distribution."""

from math import ceil, exp, log, log1p, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wenet_trainer.cascade.errors import CalibrationError

MOST = 0.9  # of the capital at stake in a bet: one image that is lost must not take all of it


def p_value(losses: NDArray[Any], *, epsilon: float, bet: float) -> float:
    """A p-value of "the mean loss is epsilon or more".

    A gambler bets on every image that its loss is below epsilon. If it is not in the mean, the capital is a
    supermartingale, and the chance that it ever reaches 1/p times the stake is at most p (Ville 1939; betting as in
    Waudby-Smith and Ramdas 2024). This holds for any number of images and any distribution.

    Args:
        losses: (N,) of images independent of each other, each in -1 to 1, in an order that was not chosen by them.
        epsilon: mean loss that is too much.
        bet: share of the capital at stake on an image, chosen without these losses, see `best_bet`.

    Raises:
        CalibrationError: the bet or a loss is out of its range, or there is none.
    """
    if not len(losses) or not (np.abs(losses) <= 1).all() or not 0 <= bet <= MOST:
        raise CalibrationError(
            f"{len(losses)} losses with bets of {bet}: give some from -1 to 1, and bets up to {MOST}"
        )
    capital = np.cumsum(np.log1p(bet * (epsilon - losses)))
    return exp(-max(0.0, float(capital.max())))


def best_bet(differing: int, pilot: int, images: int, alpha: float) -> float:
    """What to bet so that as many images as there are suffice, by what other images show.

    Args:
        differing: of the pilot images, those whose loss is not 0.
        pilot: how many these were.
        images: how many will be bet on.
        alpha: the p-value that is wanted.
    """
    square = (differing + 1) / (pilot + 2)  # of a loss in the mean; never 0
    return min(MOST, sqrt(2 * log(1 / alpha) / (images * square)))


def least_images(epsilon: float, alpha: float) -> int:
    """With fewer images nothing is certified, even where not one of them is lost.

    Args:
        epsilon: mean loss that is too much.
        alpha: greatest p-value that certifies.
    """
    return ceil(log(1 / alpha) / log1p(MOST * epsilon))
