"""Whether a new bundle does worse than the one before."""

import random

import pytest

from wenet_runtime.service.probation import ERRORS, LEAST, fault
from wenet_runtime.service.tally import Hits

GOOD = Hits(990, 1000)


@pytest.mark.parametrize(
    ("before", "after", "bad"),
    [
        (GOOD, Hits(50, 50), False),
        (GOOD, Hits(47, 50), False),  # 94 % of so few may be chance
        (GOOD, Hits(40, 50), True),
        (GOOD, Hits(0, LEAST), True),
        (GOOD, Hits(0, LEAST - 1), False),
        (Hits(LEAST - 1, LEAST - 1), Hits(0, 500), False),  # nothing is known of the one before
        (Hits(500, 1000), Hits(500, 1000), False),
        (Hits(500, 1000), Hits(300, 1000), True),
        (Hits(500, 1000), Hits(700, 1000), False),
        (Hits(100_000, 100_000), Hits(99_000, 100_000), False),  # surely worse, and by too little
        (Hits(100_000, 100_000), Hits(97_000, 100_000), True),
    ],
)
def test_only_what_is_surely_and_clearly_worse_is_a_reason(before: Hits, after: Hits, bad: bool) -> None:
    assert (fault(before, after, 0) is not None) == bad


def test_the_reason_tells_both_shares() -> None:
    assert fault(GOOD, Hits(40, 50), 0) == "budgets held in 80.0% of 50 requests, and in 99.0% of 1000 before"


def test_a_few_failures_are_enough_and_one_is_not() -> None:
    assert fault(GOOD, Hits(0, 0), ERRORS - 1) is None
    assert fault(GOOD, Hits(0, 0), ERRORS) == "3 failures of its engines"


def test_what_can_answer_nothing_goes_at_once() -> None:
    assert fault(GOOD, Hits(0, 0), 0, "the engine's thread has ended") == "the engine's thread has ended"


def test_an_equally_good_bundle_is_hardly_ever_given_up_though_it_is_looked_at_again_and_again() -> None:
    drawn, given_up = random.Random(1), 0
    for _ in range(400):
        met = of = 0
        for _ in range(60):
            of += 20
            met += sum(drawn.random() < 0.9 for _ in range(20))
            if fault(Hits(900, 1000), Hits(met, of), 0) is not None:
                given_up += 1
                break
    assert given_up <= 2
