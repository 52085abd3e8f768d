"""How the requests of one bundle end."""

from typing import Optional

import pytest

from wenet_runtime.budget import Budget, RequestOptions
from wenet_runtime.service.tally import KEPT, Hits, Tally

TIMELY = RequestOptions(Budget(latency_ms=10.0))


def test_answers_with_a_budget_are_hits_or_misses() -> None:
    tally = Tally()
    for met in (True, None, False, True):
        tally.answered(met)
    assert tally.hits == Hits(2, 3)


@pytest.mark.parametrize(
    ("slug", "options", "hits"),
    [
        ("deadline-infeasible", TIMELY, Hits(0, 1)),
        ("queue-full", TIMELY, Hits(0, 1)),
        ("budget-impossible", RequestOptions(Budget(energy_mj=1.0)), Hits(0, 1)),
        ("deadline-exceeded", RequestOptions(protocol_ms=5.0), Hits(0, 1)),
        ("queue-full", RequestOptions(), Hits(0, 0)),
        ("deadline-exceeded", None, Hits(0, 0)),
        ("invalid-tensor", TIMELY, Hits(0, 0)),
        ("draining", TIMELY, Hits(0, 0)),
    ],
)
def test_a_request_that_was_refused_because_of_its_budget_missed_it(
    slug: str, options: Optional[RequestOptions], hits: Hits
) -> None:
    tally = Tally()
    tally.failed(slug, options)
    assert (tally.hits, tally.errors) == (hits, 0)


def test_only_what_is_our_fault_is_an_error() -> None:
    tally = Tally()
    tally.failed("internal", None)
    tally.failed("malformed-request", None)
    assert tally.errors == 1


def test_what_is_long_ago_is_forgotten() -> None:
    tally = Tally()
    for _ in range(KEPT):
        tally.answered(False)
    for _ in range(KEPT):
        tally.answered(True)
    assert tally.hits == Hits(KEPT, KEPT)


def test_requests_under_way_are_counted() -> None:
    tally = Tally()
    tally.begun()
    tally.begun()
    tally.ended()
    assert tally.open == 1
