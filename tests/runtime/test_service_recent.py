"""The last minute: what is counted, what is forgotten, and what is not known."""

import json
from types import SimpleNamespace
from typing import Any, Optional

import pytest

from tests.runtime.fakes import Client
from wenet_runtime.service.recent import LATEST, WINDOW_S, Recent

NAN = float("nan")


class Ticking:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Ticking:
    return Ticking()


def answer(
    recent: Recent,
    latency_ms: float = 10.0,
    mode: str = "m1",
    *,
    met: Optional[bool] = None,
    predicted_ms: float = 8.0,
    energy_mj: Optional[float] = None,
) -> None:
    result: Any = SimpleNamespace(mode_id=mode, predicted_ms=predicted_ms, energy_mj=energy_mj)
    recent.answered(result, latency_ms=latency_ms, met=met)


def test_nothing_is_known_before_the_first_answer() -> None:
    assert Recent().members() == {
        "window_s": WINDOW_S,
        "answers": 0,
        "with_budget": 0,
        "hit_rate": None,
        "latency_ms": {"p50": None, "p95": None, "p99": None},
        "failed": {},
        "modes": {},
        "latest": [],
    }


def test_percentiles_are_of_all_answers_and_of_each_mode() -> None:
    recent = Recent()
    for one in range(1, 101):
        answer(recent, float(one), "m1" if one <= 50 else "m2")
    found = recent.members()
    assert found["latency_ms"] == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert found["modes"]["m1"]["latency_ms"] == {"p50": 25.0, "p95": 48.0, "p99": 50.0}
    assert (found["answers"], found["modes"]["m2"]["answers"]) == (100, 50)


def test_the_hit_rate_counts_only_answers_that_had_a_budget() -> None:
    recent = Recent()
    for met in (True, True, False, None, None):
        answer(recent, met=met)
    found = recent.members()
    assert (found["answers"], found["with_budget"], found["hit_rate"]) == (5, 3, 0.6667)


def test_energy_is_the_mean_of_what_is_known_and_possible() -> None:
    recent = Recent()
    for energy in (10.0, None, NAN, float("inf"), -1.0, 20.0):
        answer(recent, energy_mj=energy)
    answer(recent, mode="m2")
    found = recent.members()["modes"]
    assert (found["m1"]["energy_mj"], found["m2"]["energy_mj"]) == (15.0, None)


def test_what_was_predicted_stands_beside_what_was_measured() -> None:
    recent = Recent()
    for predicted in (4.0, NAN, 6.0, 8.0):
        answer(recent, predicted_ms=predicted)
    assert recent.members()["modes"]["m1"]["predicted_ms"] == 6.0


def test_after_a_minute_it_is_forgotten(clock: Ticking) -> None:
    recent = Recent(clock)
    answer(recent)
    recent.failed("queue-full")
    clock.now_s += WINDOW_S - 1
    answer(recent, mode="m2")
    recent.failed("draining")
    found = recent.members()
    assert (list(found["modes"]), found["failed"]) == (["m1", "m2"], {"queue-full": 1, "draining": 1})
    clock.now_s += 2
    found = recent.members()
    assert (list(found["modes"]), found["failed"], found["answers"]) == (["m2"], {"draining": 1}, 1)


def test_it_is_bounded_and_says_how_far_back_it_then_reaches(clock: Ticking) -> None:
    recent = Recent(clock, kept=10)
    for _ in range(30):
        clock.now_s += 0.5
        answer(recent)
        recent.failed("queue-full")
    found = recent.members()
    assert (found["answers"], found["failed"], found["window_s"]) == (10, {"queue-full": 10}, 4.5)
    clock.now_s += 57  # part of what is kept is older than the window, which is whole again
    found = recent.members()
    assert (found["answers"], found["window_s"]) == (7, WINDOW_S)


def test_the_latest_answers_are_told_one_by_one_oldest_first(clock: Ticking) -> None:
    recent = Recent(clock)
    for one in range(LATEST + 5):
        answer(recent, float(one), met=True)
        clock.now_s += 0.25
    latest = recent.members()["latest"]
    assert [one["latency_ms"] for one in latest] == [float(one) for one in range(5, LATEST + 5)]
    assert latest[-1] == {"age_s": 0.25, "mode": "m1", "latency_ms": LATEST + 4.0, "met": True}


def test_modes_tells_of_answers_late_ones_and_refusals(slow_client: Client) -> None:
    assert slow_client.infer(headers={"WeNet-Budget-Ms": "5000"}).status_code == 200
    assert slow_client.infer().status_code == 200
    assert slow_client.infer(headers={"WeNet-Budget-Ms": "1"}).status_code == 422
    found = slow_client.get("/modes").json()
    recent = found["recent"]
    assert (recent["answers"], recent["with_budget"], recent["hit_rate"]) == (2, 1, 1.0)
    assert recent["failed"] == {"budget-impossible": 1}
    assert set(recent["modes"]) == {"m1", "m2"}
    assert (found["engine"], found["queue_depth"]) == ("sim", 0)
    json.dumps(recent, allow_nan=False)
