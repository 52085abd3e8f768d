"""Statistics: what adds up, and how a batch that several requests share is counted once."""

from typing import Any

import pytest

from wenet_runtime.service.statistics import Statistics


def result(**changes: Any) -> Any:
    """An answer as far as statistics look at it."""
    values = {"mode_id": "m1", "queue_ms": 2.0, "infer_ms": 5.0, "batch_rows": 1, **changes}
    return type("Answer", (), values)()


@pytest.fixture
def statistics() -> Statistics:
    return Statistics(clock=lambda: 1_700_000_000.25)


def entry(statistics: Statistics, mode: str = "m1") -> Any:
    (found,) = statistics.members("tiny", [mode])
    return found


def answer(statistics: Statistics, rows: int = 1, **changes: Any) -> None:
    one = result(**changes)
    statistics.answered(one, rows=rows, decode_s=0.001, encode_s=0.0005, total_s=0.01)


def test_times_add_up_in_nanoseconds(statistics: Statistics) -> None:
    answer(statistics)
    answer(statistics)
    assert entry(statistics) == {
        "name": "tiny",
        "version": "m1",
        "last_inference": 1_700_000_000_250,
        "inference_count": 2,
        "execution_count": 2,
        "inference_stats": {
            "success": {"count": 2, "ns": 20_000_000},
            "fail": {"count": 0, "ns": 0},
            "queue": {"count": 2, "ns": 4_000_000},
            "compute_input": {"count": 2, "ns": 2_000_000},
            "compute_infer": {"count": 2, "ns": 10_000_000},
            "compute_output": {"count": 2, "ns": 1_000_000},
            "cache_hit": {"count": 0, "ns": 0},
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [
            {
                "batch_size": 1,
                "compute_input": {"count": 2, "ns": 2_000_000},
                "compute_infer": {"count": 2, "ns": 10_000_000},
                "compute_output": {"count": 2, "ns": 1_000_000},
            }
        ],
    }


def test_requests_that_ran_together_are_one_execution(statistics: Statistics) -> None:
    for rows in (1, 2, 3):
        answer(statistics, rows, batch_rows=6)
    answer(statistics)
    found = entry(statistics)
    assert (found["inference_count"], found["execution_count"]) == (7, 2)
    assert found["inference_stats"]["success"]["count"] == 4
    assert [(one["batch_size"], one["compute_infer"]["count"]) for one in found["batch_stats"]] == [(1, 1), (6, 1)]
    assert found["batch_stats"][1]["compute_infer"]["ns"] == 5_000_000


def test_thirds_of_a_batch_add_up_over_many(statistics: Statistics) -> None:
    for _ in range(3 * 1000):
        answer(statistics, 1, batch_rows=3)
    assert entry(statistics)["execution_count"] == 1000


def test_modes_are_apart_and_one_that_never_answered_has_zeros(statistics: Statistics) -> None:
    answer(statistics, mode_id="m2")
    assert entry(statistics)["inference_count"] == 0
    assert entry(statistics, "m2")["inference_count"] == 1


def test_a_failure_counts_for_its_mode_or_for_none(statistics: Statistics) -> None:
    statistics.failed("m1", 0.5)
    statistics.failed(None, 0.5)
    assert entry(statistics)["inference_stats"]["fail"] == {"count": 1, "ns": 500_000_000}
    assert entry(statistics)["execution_count"] == 0
