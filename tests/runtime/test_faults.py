"""How many failures take a mode out, and how long it rests."""

import pytest

from wenet_runtime.faults import (
    ERROR,
    FIRST_REST_S,
    LATEST,
    LONGEST_REST_S,
    NOT_FINITE,
    STUCK,
    STUCK_S,
    STUCK_TIMES,
    Faults,
    stuck_after_s,
)


def test_one_error_is_forgiven_and_two_in_a_row_are_not() -> None:
    faults = Faults()
    assert not faults.failed("m1", ERROR)
    assert faults.failed("m1", ERROR)


def test_modes_are_counted_apart() -> None:
    faults = Faults()
    assert [faults.failed(mode_id, ERROR) for mode_id in ("m0", "m1", "m2")] == [False] * 3
    assert faults.counts == {("m0", ERROR): 1, ("m1", ERROR): 1, ("m2", ERROR): 1}


def test_three_errors_among_ten_runs_are_enough() -> None:
    faults = Faults()
    verdicts = []
    for _ in range(3):
        verdicts.append(faults.failed("m1", ERROR))
        faults.answered("m1")
        faults.answered("m1")
    assert verdicts == [False, False, True]


def test_errors_that_are_far_apart_are_forgiven() -> None:
    faults = Faults()
    for _ in range(5):
        assert not faults.failed("m1", ERROR)
        for _ in range(LATEST):
            faults.answered("m1")
    assert faults.counts == {("m1", ERROR): 5}


@pytest.mark.parametrize("kind", [NOT_FINITE, STUCK])
def test_what_leaves_no_doubt_is_enough_at_once(kind: str) -> None:
    assert Faults().failed("m1", kind)


def test_a_mode_is_due_when_it_has_rested_and_rests_twice_as_long_each_time() -> None:
    faults = Faults()
    assert faults.wait_s(0.0) is None
    now_s, rests = 100.0, []
    for _ in range(12):
        faults.rest("m1", now_s)
        rest_s = faults.wait_s(now_s)
        assert rest_s is not None
        assert faults.due(now_s + 0.99 * rest_s) is None
        now_s += rest_s
        assert faults.due(now_s) == "m1"
        assert faults.wait_s(now_s + 1) == 0.0
        rests.append(rest_s)
    assert rests[:4] == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S, 8 * FIRST_REST_S]
    assert rests[-1] == LONGEST_REST_S


def test_the_mode_that_is_due_first_is_waited_for() -> None:
    faults = Faults()
    faults.rest("m1", 10.0)
    faults.rest("m0", 5.0)
    assert faults.wait_s(5.0) == FIRST_REST_S
    assert faults.due(5.0 + FIRST_REST_S) == "m0"


def test_one_that_is_back_is_not_due_and_begins_anew_but_rests_longer_if_it_fails_again() -> None:
    faults = Faults()
    faults.failed("m1", ERROR)
    faults.failed("m1", ERROR)
    faults.rest("m1", 0.0)
    faults.back("m1")
    assert (faults.due(1000.0), faults.wait_s(0.0)) == (None, None)
    assert not faults.failed("m1", ERROR)  # two in a row are counted from its return
    assert faults.failed("m1", ERROR)
    faults.rest("m1", 0.0)
    assert faults.wait_s(0.0) == 2 * FIRST_REST_S


def test_long_rests_are_forgiven_with_the_errors() -> None:
    faults = Faults()
    for _ in range(5):
        faults.rest("m1", 0.0)
    faults.back("m1")
    for _ in range(LATEST):
        faults.answered("m1")
    faults.rest("m1", 0.0)
    assert faults.wait_s(0.0) == FIRST_REST_S


def test_a_run_is_stuck_after_thirty_seconds_or_fifty_times_its_p99() -> None:
    assert stuck_after_s(10.0, 8) == STUCK_S
    assert stuck_after_s(500.0, 4) == STUCK_TIMES * 2.0
