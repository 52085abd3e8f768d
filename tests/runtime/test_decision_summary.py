"""The summary's figures are those of a plain count over the same decisions."""

import json
import random
from typing import Any

import pytest

from wenet_runtime.decision import Decision
from wenet_runtime.decision_summary import NAMES, OTHERS, Summary

PLAIN = Decision(1, 2.5, "r", 1, 0, "answered", "fits", "m1")


def summary(*decisions: Decision) -> Summary:
    found = Summary()
    for one in decisions:
        found.add(one)
    return found


def test_errors_and_coverage_are_those_of_a_plain_count() -> None:
    chance = random.Random(7)
    for _ in range(20):
        decisions = [
            PLAIN._replace(
                median_ms=chance.uniform(1, 50),
                bound_ms=chance.uniform(1, 60),
                measured_ms=chance.uniform(1, 60),
                attainment=0.95,
            )
            for _ in range(chance.randrange(1, 200))
        ]
        found = summary(*decisions).members()
        errors = sorted(abs(one.measured_ms / one.median_ms - 1) for one in decisions)  # type: ignore[operator]
        assert found["prediction_error"]["count"] == len(decisions)
        for name, share in (("median", 0.5), ("p95", 0.95)):
            value = found["prediction_error"][name]
            assert sum(one <= value for one in errors) >= share * len(errors)
            assert sum(one < value for one in errors) < share * len(errors)
        within = sum(one.measured_ms <= one.bound_ms for one in decisions)  # type: ignore[operator]
        assert found["coverage"]["within_bound"] == pytest.approx(within / len(decisions))
        assert found["coverage"]["attainment"] == pytest.approx(0.95)


def test_what_did_not_run_or_was_not_measured_counts_in_no_error() -> None:
    predicted: Any = {"median_ms": 10.0, "bound_ms": 12.0, "attainment": 0.99}
    found = summary(
        PLAIN._replace(measured_ms=11.0, **predicted),
        PLAIN._replace(**predicted),
        PLAIN._replace(measured_ms=99.0, mode_id=None, outcome="refused", reason="deadline-infeasible", **predicted),
        PLAIN._replace(measured_ms=5.0, median_ms=0.0),
    ).members()
    assert (found["decisions"], found["prediction_error"]["count"], found["coverage"]["count"]) == (4, 1, 1)
    assert found["prediction_error"]["median"] == pytest.approx(0.1)
    assert found["outcomes"] == {"answered": 3, "refused": 1}
    assert found["modes"] == {"m1": 3}


def test_counts_are_told_most_frequent_first() -> None:
    passed = ("m2", "too-slow", 9.0, 8.0)
    found = summary(*[PLAIN._replace(passed_over=passed)] * 2, PLAIN._replace(reason="energy", mode_id="m0"))
    assert found.lines() == [
        "3 decisions: answered 3",
        "reasons: fits 2, energy 1",
        "modes: m1 2, m0 1",
        "passed over: too-slow 2",
    ]


def test_nothing_has_no_figures() -> None:
    found = Summary()
    assert found.lines() == ["0 decisions"]
    assert found.members()["coverage"] == {"count": 0, "within_bound": None, "attainment": None}


def test_a_ratio_that_is_no_number_is_left_out() -> None:
    lines = [PLAIN._replace(median_ms=1e-300, measured_ms=1e300), PLAIN._replace(median_ms=10.0, measured_ms=11.0)]
    lines += [PLAIN._replace(bound_ms=1.0, measured_ms=1.0, attainment=1e308)] * 2
    found = summary(*lines).members()
    assert found["prediction_error"] == {"count": 1, "median": pytest.approx(0.1), "p95": pytest.approx(0.1)}
    json.dumps(found, allow_nan=False)


def test_of_a_long_log_the_latest_errors_are_kept_and_said_to_be_the_latest() -> None:
    found = Summary(kept=3)
    for measured_ms in (99.0, 99.0, 11.0, 12.0, 13.0):
        found.add(PLAIN._replace(median_ms=10.0, bound_ms=20.0, measured_ms=measured_ms, attainment=0.9))
    assert found.lines()[-2:] == [
        "prediction error of the latest 3: 20.0% (median), 30.0% (95th percentile)",
        "within the bound: 3 of 5 (60.00%); asked for: 90.00%",
    ]


def test_a_log_of_ever_new_names_does_not_fill_the_memory() -> None:
    found = summary(*[PLAIN._replace(reason=str(number)) for number in range(2 * NAMES)]).members()
    assert len(found["reasons"]) == NAMES + 1
    assert found["reasons"][OTHERS] == NAMES
