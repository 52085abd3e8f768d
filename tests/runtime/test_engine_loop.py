"""The engine's thread, seen from outside: whether it moves on."""

import threading
import time
from concurrent.futures import Future
from typing import Any, List

import pytest

from tests.runtime.fakes import PATIENCE_S, SettableBackend, ones
from wenet_runtime.budget import RequestOptions
from wenet_runtime.result import Result
from wenet_runtime.runtime import Runtime

LONG_S = 14.0  # twice that is not yet a run that is given up


class LateClock:
    """The clock of both, which a test can move on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> LateClock:
    one = LateClock()
    for module in ("runtime", "engine_loop"):
        monkeypatch.setattr(f"wenet_runtime.{module}.time", one)
    return one


def send(runtime: Runtime) -> "Future[Result]":
    return runtime.submit({"input": ones()}, RequestOptions(), time.monotonic())


def until_idle(runtime: Runtime) -> None:
    end = time.monotonic() + PATIENCE_S
    while runtime.pending:
        assert time.monotonic() < end, "it is never done"
        time.sleep(0.001)


def test_who_has_nothing_to_do_is_not_stuck_however_long(runtime: Runtime, clock: LateClock) -> None:
    clock.ahead_s = LONG_S
    assert runtime.stuck_s == 0.0


def test_a_run_that_does_not_end_is_stuck_until_it_does(
    runtime: Runtime, backend: SettableBackend, clock: LateClock
) -> None:
    backend.hold()
    first = send(runtime)
    backend.wait_until_running()
    assert runtime.stuck_s < LONG_S
    clock.ahead_s = LONG_S
    assert LONG_S <= runtime.stuck_s < 2 * LONG_S
    backend.release()
    first.result(PATIENCE_S)
    until_idle(runtime)
    assert runtime.stuck_s == 0.0


def test_each_run_is_counted_from_its_own_beginning(
    runtime: Runtime, backend: SettableBackend, clock: LateClock
) -> None:
    backend.hold()
    first = send(runtime)
    backend.wait_until_running()
    clock.ahead_s = LONG_S
    second = send(runtime)
    assert runtime.stuck_s >= LONG_S  # what comes meanwhile makes the run no younger
    backend.entered.clear()
    held = backend._gate
    backend._gate = threading.Event()  # the next run is held too
    held.set()
    first.result(PATIENCE_S)
    backend.wait_until_running()
    assert runtime.stuck_s < LONG_S
    backend.release()
    second.result(PATIENCE_S)


def test_what_waits_and_is_not_taken_counts_from_its_arrival(runtime: Runtime, clock: LateClock) -> None:
    clock.ahead_s = LONG_S  # idle for long
    with runtime._loop.changed:  # nothing can be taken
        first = send(runtime)
        assert runtime.stuck_s < LONG_S
        clock.ahead_s = 2 * LONG_S
        assert runtime.stuck_s >= LONG_S
        second = send(runtime)  # nor does a further one make it young again
        assert runtime.stuck_s >= LONG_S
    for one in (first, second):
        one.result(PATIENCE_S)


def test_whether_it_is_stuck_is_answered_while_its_lock_is_held(runtime: Runtime) -> None:
    found: List[Any] = []
    asking = threading.Thread(target=lambda: found.append(runtime.stuck_s))
    with runtime._loop.changed:
        asking.start()
        asking.join(PATIENCE_S)
        assert found == [0.0]
