"""Modes that fail: taken out, tried again, brought back, and what requests and health see of it."""

import contextlib
import time
from concurrent.futures import Future
from typing import Any, Callable, Dict, Iterator, List, Optional, Set

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runtime.fakes import PATIENCE_S, SLOW_MS, Client, SettableBackend, check_problem, make_service, ones
from tests.runtime.patience import wait_until
from wenet_runtime.budget import Budget, RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.engines.base import Tensors
from wenet_runtime.errors import BudgetImpossible, EngineError, NotReady, NotResident, UnknownMode
from wenet_runtime.faults import ERROR, NOT_FINITE, STUCK, STUCK_S
from wenet_runtime.result import Result
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.app import create_app
from wenet_runtime.service.inference import Service

ENOUGH = 2  # errors in a row


class LateClock:
    """The clock of the engine's thread, which a test can move on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


class FailingBackend(SettableBackend):
    """Modes fail for as long as they are named here."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.broken: Set[str] = set()
        self.not_finite: Set[str] = set()
        self.overflowing: Set[str] = set()  # for inputs above 1000

    def run(self, mode_id: str, answer: Callable[[], Dict[str, NDArray[Any]]], inputs: Tensors) -> Any:
        outputs = super().run(mode_id, answer, inputs)
        if mode_id in self.broken:
            raise RuntimeError(f"{mode_id} is broken")
        (given,) = inputs.values()
        for at in range(given.shape[0]):
            too_large = mode_id in self.overflowing and given[at].max() > 1000
            if mode_id in self.not_finite or too_large or not np.isfinite(given[at]).all():
                outputs["logits"][at, 0] = np.nan
        return outputs


@pytest.fixture
def backend(bundle: Bundle) -> Iterator[FailingBackend]:
    one = FailingBackend(bundle)
    yield one
    one.release()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> LateClock:
    one = LateClock()
    for module in ("runtime", "engine_loop", "attempts"):
        monkeypatch.setattr(f"wenet_runtime.{module}.time", one)
    return one


@pytest.fixture
def service(bundle: Bundle, backend: FailingBackend, clock: LateClock) -> Iterator[Service]:
    one = make_service(bundle, backend, medians_ms=SLOW_MS)
    yield one
    backend.release()
    one.runtime.close(timeout_s=5)


@pytest.fixture
def runtime(service: Service) -> Runtime:
    return service.runtime


def send(runtime: Runtime, x: Optional[NDArray[Any]] = None, **options: Any) -> "Future[Result]":
    latency_ms, floor = options.pop("budget_ms", None), options.pop("min_accuracy", None)
    budget = Budget(latency_ms=latency_ms, min_accuracy=floor)
    return runtime.submit({"input": ones() if x is None else x}, RequestOptions(budget, **options), time.monotonic())


def ask(runtime: Runtime, x: Optional[NDArray[Any]] = None, **options: Any) -> Result:
    return send(runtime, x, **options).result(PATIENCE_S)


def take_out(runtime: Runtime, backend: FailingBackend, mode_id: str) -> None:
    backend.broken.add(mode_id)
    for _ in range(ENOUGH):
        with pytest.raises(RuntimeError, match=f"{mode_id} is broken"):
            ask(runtime, mode=mode_id)


def rested(runtime: Runtime, clock: LateClock) -> None:
    """Let the time pass until modes that rest are due, and the engine's thread look at its clock."""
    clock.ahead_s += 1000.0
    with runtime._loop.changed:
        runtime._loop.changed.notify_all()


def out(runtime: Runtime) -> List[str]:
    return sorted(runtime.pool.residency.out)


def test_a_request_that_a_mode_fails_is_answered_by_the_next_one(runtime: Runtime, backend: FailingBackend) -> None:
    backend.broken = {"m2", "m1"}
    result = ask(runtime)
    assert (result.mode_id, runtime.pending) == ("m0", 0)
    assert [mode_id for mode_id, _ in backend.runs] == ["m2", "m1", "m0"]


def test_every_request_of_a_batch_is(runtime: Runtime, backend: FailingBackend) -> None:
    backend.broken = {"m2"}
    results = [send(runtime, ones(value=value)) for value in (1.0, 2.0, 3.0)]
    assert {one.result(PATIENCE_S).mode_id for one in results} == {"m1"}


def test_what_the_engine_said_is_the_reason_where_no_other_mode_may_answer(
    runtime: Runtime, backend: FailingBackend
) -> None:
    backend.broken = {"m2"}
    with pytest.raises(RuntimeError, match="m2 is broken"):
        ask(runtime, mode="m2")
    with pytest.raises(RuntimeError, match="m2 is broken"):
        ask(runtime, min_accuracy=runtime.controller.predictor.accuracies[0])


def test_a_request_is_not_tried_again_after_its_budget(
    runtime: Runtime, backend: FailingBackend, clock: LateClock
) -> None:
    backend.broken = {"m1"}
    backend.hold()
    asked = send(runtime, budget_ms=5_000.0)
    backend.wait_until_running()
    clock.ahead_s = 6.0
    backend.release()
    with pytest.raises(RuntimeError, match="m1 is broken"):
        asked.result(PATIENCE_S)


def test_two_errors_in_a_row_take_a_mode_out_and_others_serve(runtime: Runtime, backend: FailingBackend) -> None:
    backend.broken = {"m2"}
    assert ask(runtime).mode_id == "m1"
    assert out(runtime) == []
    assert ask(runtime).mode_id == "m1"
    assert runtime.pool.residency.out == {"m2": "its engine failed; it is tried again"}
    backend.runs.clear()
    assert ask(runtime).mode_id == "m1"
    assert [mode_id for mode_id, _ in backend.runs] == ["m1"]
    assert runtime.faults == {("m2", ERROR): 2}
    assert runtime.trouble is None


def test_who_wants_a_mode_that_is_out_may_come_again(runtime: Runtime, backend: FailingBackend) -> None:
    take_out(runtime, backend, "m2")
    with pytest.raises(NotResident, match="'m2' is out of service: its engine failed"):
        send(runtime, mode="m2")
    with pytest.raises(NotResident, match="every mode that this request accepts has failed"):
        send(runtime, min_accuracy=runtime.controller.predictor.accuracies[0])
    with pytest.raises(BudgetImpossible, match="no allowed mode reaches"):  # no mode that failed does either
        send(runtime, min_accuracy=0.999)
    runtime.pool.take_out("m1", "left out by choice")
    with pytest.raises(UnknownMode, match="left out by choice"):
        send(runtime, mode="m1")


def test_a_mode_is_tried_again_after_a_rest_and_serves_again_when_it_answers(
    runtime: Runtime, backend: FailingBackend, clock: LateClock
) -> None:
    take_out(runtime, backend, "m2")
    backend.runs.clear()
    rested(runtime, clock)
    wait_until(lambda: backend.runs != [])
    wait_until(lambda: runtime._loop.outages.faults.wait_s(clock.monotonic()) not in (None, 0.0))
    assert out(runtime) == ["m2"]  # it still fails
    backend.broken.clear()
    rested(runtime, clock)
    wait_until(lambda: out(runtime) == [])
    assert ask(runtime).mode_id == "m2"


def test_under_load_it_is_tried_again_all_the_same(runtime: Runtime, backend: FailingBackend, clock: LateClock) -> None:
    take_out(runtime, backend, "m2")
    backend.broken.clear()
    backend.hold()
    first = send(runtime)
    backend.wait_until_running()
    waiting = [send(runtime, mode="m0", priority=3), send(runtime, mode="m1", priority=3)]
    backend.runs.clear()
    clock.ahead_s = 20.0  # overdue, and no run may take longer yet
    backend.release()
    for one in [first, *waiting]:
        one.result(PATIENCE_S)
    assert backend.runs[0][0] == "m2"  # before those who wait
    assert out(runtime) == []


def test_a_drain_waits_for_requests_and_not_for_a_mode_that_is_due(
    bundle: Bundle, runtime: Runtime, backend: FailingBackend, clock: LateClock
) -> None:
    take_out(runtime, backend, "m2")
    backend.hold()
    first = send(runtime, mode="m1")
    backend.wait_until_running()
    waiting = send(runtime, mode="m0")
    clock.ahead_s = 20.0
    runtime._loop._closed = True
    backend.release()
    assert first.result(PATIENCE_S).mode_id == "m1"
    assert waiting.result(PATIENCE_S).mode_id == "m0"
    assert runtime.close(PATIENCE_S)


def test_the_last_mode_stays_and_is_the_trouble_until_it_answers(runtime: Runtime, backend: FailingBackend) -> None:
    for mode_id in ("m2", "m1", "m0"):
        take_out(runtime, backend, mode_id)
    assert out(runtime) == ["m1", "m2"]
    assert runtime.trouble == "mode 'm0' fails, and no other is in service"
    with pytest.raises(RuntimeError, match="m0 is broken"):
        ask(runtime)
    backend.broken.discard("m0")
    assert ask(runtime).mode_id == "m0"
    assert runtime.trouble is None


def test_the_last_mode_is_tried_again_though_nobody_asks(
    runtime: Runtime, backend: FailingBackend, clock: LateClock
) -> None:
    for mode_id in ("m2", "m1", "m0"):
        take_out(runtime, backend, mode_id)
    backend.broken.clear()
    rested(runtime, clock)
    wait_until(lambda: runtime.trouble is None and out(runtime) == [])


def test_the_last_mode_goes_when_another_comes_back(
    runtime: Runtime, backend: FailingBackend, clock: LateClock
) -> None:
    for mode_id in ("m2", "m1", "m0"):
        take_out(runtime, backend, mode_id)
    backend.broken = {"m0", "m2"}
    rested(runtime, clock)
    wait_until(lambda: out(runtime) == ["m0", "m2"])
    assert runtime.trouble is None
    assert ask(runtime).mode_id == "m1"


def test_numbers_that_are_none_are_answered_by_the_next_mode_and_take_theirs_out_at_once(
    runtime: Runtime, backend: FailingBackend
) -> None:
    backend.not_finite = {"m2"}
    result = ask(runtime)
    assert result.mode_id == "m1"
    assert np.isfinite(result.outputs["logits"]).all()
    assert runtime.pool.residency.out == {"m2": "it answered what is no number; it is tried again"}
    assert runtime.faults == {("m2", NOT_FINITE): 1}


def test_of_a_mode_that_alone_may_answer_they_are_an_error(runtime: Runtime, backend: FailingBackend) -> None:
    backend.not_finite = {"m2"}
    with pytest.raises(EngineError, match="'m2' answers its golden input with a 'logits' that is no number"):
        ask(runtime, mode="m2")


def test_numbers_that_are_none_in_the_input_are_the_client_s_own(runtime: Runtime, backend: FailingBackend) -> None:
    for value in (np.nan, np.inf):
        result = ask(runtime, ones(value=value))
        assert result.mode_id == "m2"
        assert np.isnan(result.outputs["logits"]).any()
    assert (out(runtime), runtime.faults) == ([], {})
    assert len(backend.runs) == 2  # nothing was run again


def test_so_are_numbers_too_large_for_a_mode_that_answers_its_golden_input(
    runtime: Runtime, backend: FailingBackend
) -> None:
    backend.overflowing = {"m2"}
    result = ask(runtime, ones(value=1e30))
    assert result.mode_id == "m2"
    assert np.isnan(result.outputs["logits"]).any()
    assert (out(runtime), runtime.faults) == ([], {})


def test_a_row_with_such_numbers_does_not_excuse_another(runtime: Runtime, backend: FailingBackend) -> None:
    backend.not_finite = {"m2"}
    x = np.concatenate([ones(value=np.nan), ones()])
    assert ask(runtime, x).mode_id == "m1"


def test_a_run_that_does_not_end_turns_everybody_away(
    service: Service, runtime: Runtime, backend: FailingBackend, clock: LateClock
) -> None:
    client = Client(create_app(service), service)
    backend.hold()
    running = send(runtime, mode="m1")
    backend.wait_until_running()
    waiting = send(runtime)
    limit_s = runtime.stuck_after_s
    assert limit_s >= STUCK_S
    clock.ahead_s = limit_s - 10.0
    runtime.tick()
    assert not running.done()
    assert not runtime.stuck
    clock.ahead_s = limit_s + 1.0
    assert runtime.stuck
    with pytest.raises(NotReady, match="send to another server"):
        send(runtime)
    check_problem(client.infer(), "not-ready", 503)
    runtime.tick()
    with pytest.raises(NotReady):
        waiting.result(PATIENCE_S)
    with pytest.raises(EngineError, match="a run of it did not end"):
        running.result(PATIENCE_S)
    assert runtime.faults == {("m1", STUCK): 1}
    runtime.tick()
    assert runtime.faults == {("m1", STUCK): 1}  # it is one run
    members = check_problem(client.get("/v2/health/ready"), "not-ready", 503)
    assert "the engine has not moved on for more than" in members["detail"]
    health = client.get("/v2/health").json()
    assert (health["ready"], health["live"]) == (False, True)
    assert health["engine"]["trouble"] == members["detail"]
    assert health["engine"]["stuck_s"] > limit_s
    assert health["modes"]["out"] == {"m1": "a run of it did not end; it is tried again"}


def test_one_that_ends_after_all_serves_again_and_its_late_answer_harms_nobody(
    runtime: Runtime, backend: FailingBackend, clock: LateClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend.hold()
    running = send(runtime, mode="m1")
    backend.wait_until_running()
    clock.ahead_s = runtime.stuck_after_s + 1.0
    runtime.tick()
    with pytest.raises(EngineError):
        running.result(PATIENCE_S)
    backend.release()
    wait_until(lambda: runtime.pending == 0)
    assert ask(runtime).mode_id == "m2"
    assert "met a defect" not in caplog.text
    assert not runtime.stuck
    assert runtime.trouble is None
    rested(runtime, clock)
    wait_until(lambda: out(runtime) == [])


def test_a_long_mode_may_take_long(bundle: Bundle, backend: FailingBackend, clock: LateClock) -> None:
    runtime = make_service(bundle, backend, medians_ms=SLOW_MS).runtime
    backend.hold()
    running = send(runtime, mode="m2")  # said to take 10 s
    backend.wait_until_running()
    clock.ahead_s = 300.0
    runtime.tick()
    assert not runtime.stuck
    backend.release()
    assert running.result(PATIENCE_S).mode_id == "m2"
    runtime.close(PATIENCE_S)


def test_metrics_modes_and_health_say_which_mode_is_out(service: Service, backend: FailingBackend) -> None:
    client = Client(create_app(service), service)
    take_out(service.runtime, backend, "m2")
    assert 'wenet_mode_faults_total{kind="error",mode="m2"} 2.0' in client.get("/metrics").text
    shown = {one["id"]: one["out_of_service"] for one in client.get("/modes").json()["modes"]}
    assert shown == {"m0": None, "m1": None, "m2": "its engine failed; it is tried again"}
    health = client.get("/v2/health").json()
    assert health["ready"]
    assert health["engine"] == {"trouble": None, "stuck_s": 0.0}
    assert health["modes"]["out"] == {"m2": "its engine failed; it is tried again"}
    check_problem(client.infer(headers={"WeNet-Mode": "m2"}), "not-ready", 503)
    check_problem(client.get("/v2/models/tiny/versions/m2/ready"), "not-ready", 503)
    assert client.get("/v2/models/tiny/versions/m1/ready").status_code == 200
    for mode_id in ("m1", "m0"):
        take_out(service.runtime, backend, mode_id)
    members = check_problem(client.get("/v2/health/ready"), "not-ready", 503)
    assert members["detail"] == "mode 'm0' fails, and no other is in service"


def test_a_mode_that_was_evicted_while_it_was_out_is_checked_when_it_is_loaded(
    runtime: Runtime, backend: FailingBackend, clock: LateClock
) -> None:
    take_out(runtime, backend, "m2")
    runtime.pool.evict("m2")
    rested(runtime, clock)
    wait_until(lambda: out(runtime) == [])


def test_a_mode_that_was_taken_out_for_good_meanwhile_stays_out(
    runtime: Runtime, backend: FailingBackend, clock: LateClock
) -> None:
    take_out(runtime, backend, "m2")
    backend.broken.clear()
    runtime.pool.take_out("m2", "it cannot be loaded")
    rested(runtime, clock)
    wait_until(lambda: runtime._loop.outages.faults.wait_s(0.0) is None)
    assert runtime.pool.residency.out == {"m2": "it cannot be loaded"}


def test_a_probe_does_not_run_a_mode_that_is_out(runtime: Runtime, backend: FailingBackend, clock: LateClock) -> None:
    take_out(runtime, backend, "m0")
    backend.runs.clear()
    probing = runtime._loop._probing
    probing._inputs = {"input": ones(value=7.0)}
    with contextlib.ExitStack() as held:
        held.enter_context(runtime._loop.changed)
        runtime._loop.probe_soon("m0")
    wait_until(lambda: ("m1", 7.0) in backend.runs)
    assert ("m0", 7.0) not in backend.runs
