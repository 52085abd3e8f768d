"""Budgets, options and deadlines refuse what cannot be meant."""

import math
from typing import Any, Dict, Optional

import pytest

from wenet_runtime.budget import Budget, Deadline, RequestOptions
from wenet_runtime.errors import BudgetError


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"latency_ms": 0.001, "energy_mj": 0.001, "min_accuracy": 0.0},
        {"latency_ms": 600_000.0, "energy_mj": 1_000_000.0, "min_accuracy": 1.0},
    ],
)
def test_the_ends_of_every_range_are_taken(limits: Dict[str, float]) -> None:
    budget = Budget(**limits)
    assert {name: getattr(budget, name) for name in limits} == limits


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"latency_ms": 0.0009}, "budget_ms is 0.0009: give a number from 0.001 to 600000"),
        ({"latency_ms": 600_000.1}, "budget_ms"),
        ({"latency_ms": 0.0}, "budget_ms"),
        ({"latency_ms": -1.0}, "budget_ms"),
        ({"latency_ms": math.nan}, "budget_ms"),
        ({"latency_ms": math.inf}, "budget_ms"),
        ({"energy_mj": 0.0}, "budget_mj"),
        ({"energy_mj": 1_000_001.0}, "budget_mj"),
        ({"min_accuracy": 1.01}, "min_accuracy"),
        ({"min_accuracy": -0.01}, "min_accuracy"),
        ({"min_accuracy": math.nan}, "min_accuracy"),
    ],
)
def test_values_out_of_range_are_refused_by_name(limits: Dict[str, float], said: str) -> None:
    with pytest.raises(BudgetError, match=said):
        Budget(**limits)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"on_miss": "ignore"}, "on_miss is 'ignore'"), ({"priority": 0}, "priority is 0"), ({"priority": 4}, "priority")],
)
def test_options_out_of_range_are_refused_by_name(options: Dict[str, Any], said: str) -> None:
    with pytest.raises(BudgetError, match=said):
        RequestOptions(**options)


@pytest.mark.parametrize(
    ("budget_ms", "protocol_ms", "effective_ms"),
    [(None, None, None), (5.0, None, 5.0), (None, 7.0, 7.0), (5.0, 7.0, 5.0), (7.0, 5.0, 5.0)],
)
def test_the_effective_limit_is_the_tighter_one(budget_ms: Any, protocol_ms: Any, effective_ms: Any) -> None:
    assert RequestOptions(budget=Budget(budget_ms), protocol_ms=protocol_ms).effective_ms == effective_ms


def test_a_deadline_counts_from_the_start_and_goes_negative_when_passed() -> None:
    deadline = Deadline(start_s=10.0, limit_ms=50.0)
    assert deadline.at_s == pytest.approx(10.05)
    assert deadline.left_ms(10.02) == pytest.approx(30.0)
    assert deadline.elapsed_ms(10.02) == pytest.approx(20.0)
    assert deadline.left_ms(10.07) == pytest.approx(-20.0)


def test_without_a_limit_the_deadline_never_comes() -> None:
    deadline = Deadline(start_s=10.0, limit_ms=None)
    assert deadline.at_s == math.inf
    assert deadline.left_ms(1e9) == math.inf


@pytest.mark.parametrize(
    ("protocol_ms", "elapsed_ms", "ended"), [(None, 1e9, False), (5.0, 4.9, False), (5.0, 5.0, True)]
)
def test_a_protocol_s_deadline_ends_at_its_instant(
    protocol_ms: Optional[float], elapsed_ms: float, ended: bool
) -> None:
    assert RequestOptions(protocol_ms=protocol_ms).protocol_ended(elapsed_ms) is ended
