"""The runtime: one engine thread, urgency before arrival, the decision after queueing, nothing lost."""

import contextlib
import os
import threading
import time
from concurrent.futures import Future
from typing import Any, Iterator, List, Optional

import numpy as np
import pytest

from tests.runtime.fakes import (
    PATIENCE_S,
    SLOW_MS,
    LoadingBackend,
    SettableBackend,
    make_service,
    no_artifact,
    ones,
    profile,
    wait_for,
)
from tests.runtime.patience import wait_until
from wenet_runtime.answers import Ask
from wenet_runtime.batching import Batching
from wenet_runtime.budget import Budget, RequestOptions
from wenet_runtime.bundle import Bundle, Rule
from wenet_runtime.canary import WARMUP_RUNS
from wenet_runtime.cascade import Cascade
from wenet_runtime.controller import Controller
from wenet_runtime.errors import (
    BudgetImpossible,
    DeadlineExceeded,
    Draining,
    EngineError,
    InfeasibleBudget,
    NotResident,
    QueueFull,
    SettingsError,
    UnknownMode,
)
from wenet_runtime.escalation import Escalation
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.meters.sim import SimMeter
from wenet_runtime.pool import Pool
from wenet_runtime.profile import Profile
from wenet_runtime.result import Result
from wenet_runtime.runtime import Runtime
from wenet_runtime.scheduler import Scheduler
from wenet_runtime.slowdown import FLOOR, RUN


def send(
    runtime: Runtime, value: float = 1.0, *, rows: int = 1, ago_ms: float = 0.0, **options: Any
) -> "Future[Result]":
    """Submit an input all of one value, by which the engine's record knows it again."""
    budget = Budget(options.pop("budget_ms", None), options.pop("budget_mj", None), options.pop("min_accuracy", None))
    start_s = time.monotonic() - ago_ms / 1e3
    return runtime.submit({"input": ones(rows, value)}, RequestOptions(budget=budget, **options), start_s)


def answer(future: "Future[Result]") -> Result:
    return future.result(timeout=PATIENCE_S)


def occupy(runtime: Runtime, backend: SettableBackend) -> "Future[Result]":
    """Have the engine busy with a first request (value 0) until the test releases it."""
    backend.hold()
    first = send(runtime, 0.0)
    backend.wait_until_running()
    return first


class LateClock:
    """The runtime's clock, which a test can move on while requests wait."""

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


def test_an_answer_says_what_happened(runtime: Runtime) -> None:
    result = answer(send(runtime, rows=2))
    assert result.outputs["logits"].shape == (2, 10)
    assert (result.mode_id, result.reason, result.switched) == ("m2", "fits", False)
    assert (result.energy_mj, result.energy_source) == (None, "none")
    assert result.predicted_ms >= 20_000.0  # two rows of 10 s
    assert result.queue_ms >= 0
    assert result.infer_ms >= 0
    assert runtime.active == "m2"


def test_a_change_of_mode_is_noted(runtime: Runtime) -> None:
    switched = [answer(send(runtime, mode=mode)).switched for mode in ("m0", "m0", "m1", "m0")]
    assert switched == [False, False, True, True]


def test_the_decision_is_made_after_queueing(runtime: Runtime, backend: SettableBackend, clock: LateClock) -> None:
    first = occupy(runtime, backend)
    waiting = send(runtime, budget_ms=100_000.0)  # enough for the largest mode, on arrival
    clock.ahead_s = 95.0  # and now enough for the middle one only
    backend.release()
    assert answer(first).mode_id == "m2"
    assert answer(waiting).mode_id == "m1"


def test_waiting_is_part_of_the_prediction(runtime: Runtime, backend: SettableBackend, clock: LateClock) -> None:
    occupy(runtime, backend)
    waiting = send(runtime)
    clock.ahead_s = 5.0
    backend.release()
    result = answer(waiting)
    assert result.predicted_ms >= 5_000.0
    assert result.queue_ms >= 5_000.0


def test_what_waits_already_counts_against_a_newcomer(runtime: Runtime, backend: SettableBackend) -> None:
    occupy(runtime, backend)  # 10 s of it are expected
    with pytest.raises(InfeasibleBudget):
        send(runtime, budget_ms=5_000.0)
    backend.release()


def test_what_is_less_urgent_does_not_count(runtime: Runtime, backend: SettableBackend) -> None:
    backend.hold()
    send(runtime, 0.0, mode="m0")
    backend.wait_until_running()
    patient = [send(runtime, priority=2, mode="m2") for _ in range(5)]
    urgent = send(runtime, priority=1, budget_ms=20_000.0)
    with pytest.raises(InfeasibleBudget):
        send(runtime, priority=3, budget_ms=20_000.0)
    backend.release()
    assert answer(urgent).mode_id
    assert [answer(one).mode_id for one in patient] == ["m2"] * 5


def test_priority_then_deadline_then_arrival_order_the_work(runtime: Runtime, backend: SettableBackend) -> None:
    occupy(runtime, backend)
    waiting = [
        send(runtime, 5.0, priority=3, budget_ms=60_000.0),
        send(runtime, 3.0),
        send(runtime, 4.0),
        send(runtime, 2.0, budget_ms=300_000.0),
        send(runtime, 1.0, budget_ms=200_000.0),
        send(runtime, 0.5, priority=1),
    ]
    backend.release()
    for one in waiting:
        answer(one)
    assert backend.first_numbers == [0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_work_that_expires_in_the_queue_never_runs(
    runtime: Runtime, backend: SettableBackend, clock: LateClock
) -> None:
    occupy(runtime, backend)
    waiting = send(runtime, 7.0, budget_ms=50_000.0)
    clock.ahead_s = 60.0
    backend.release()
    with pytest.raises(DeadlineExceeded, match="budget of 50000 ms ended while") as caught:
        answer(waiting)
    assert (caught.value.executed, caught.value.budget_ms) == (False, 50_000.0)
    assert 7.0 not in backend.first_numbers


def test_late_work_runs_although_its_budget_is_over(
    runtime: Runtime, backend: SettableBackend, clock: LateClock
) -> None:
    occupy(runtime, backend)
    waiting = send(runtime, 7.0, budget_ms=50_000.0, on_miss="late")
    clock.ahead_s = 60.0
    backend.release()
    assert (answer(waiting).mode_id, answer(waiting).reason) == ("m0", "degraded")


def test_a_protocol_s_deadline_ends_late_work_too(runtime: Runtime, backend: SettableBackend, clock: LateClock) -> None:
    occupy(runtime, backend)
    waiting = send(runtime, 7.0, protocol_ms=50_000.0, on_miss="late")
    clock.ahead_s = 60.0
    backend.release()
    with pytest.raises(DeadlineExceeded):
        answer(waiting)
    assert 7.0 not in backend.first_numbers


@pytest.mark.parametrize(("on_miss", "mode_id"), [("degrade", "m0"), ("late", "m0"), ("reject", None)])
def test_when_nothing_fits_any_more_the_request_s_own_wish_decides(
    runtime: Runtime, backend: SettableBackend, clock: LateClock, on_miss: str, mode_id: Optional[str]
) -> None:
    runtime.observe_overhead(3_000.0)  # so that medians and bounds lie far from the clock's noise
    for _ in range(50):
        runtime.observe_overhead(1_000.0)
    occupy(runtime, backend)
    waiting = send(runtime, 7.0, budget_ms=60_000.0, on_miss=on_miss)
    clock.ahead_s = 58.0  # 2 s are left: more than every median, less than every bound
    backend.release()
    if mode_id is None:
        with pytest.raises(InfeasibleBudget):
            answer(waiting)
        assert 7.0 not in backend.first_numbers
    else:
        assert (answer(waiting).mode_id, answer(waiting).reason) == (mode_id, "degraded")


def test_cancelled_work_never_runs_and_leaves_the_queue(runtime: Runtime, backend: SettableBackend) -> None:
    first = occupy(runtime, backend)
    waiting = send(runtime, 7.0)
    assert runtime.queue_depth == 1
    assert waiting.cancel()
    assert runtime.queue_depth == 0
    last = send(runtime, 8.0)
    backend.release()
    answer(first)
    answer(last)
    assert backend.first_numbers == [0.0, 8.0]


def test_running_work_cannot_be_cancelled(runtime: Runtime, backend: SettableBackend) -> None:
    first = occupy(runtime, backend)
    assert not first.cancel()
    backend.release()
    assert answer(first).mode_id == "m2"


def test_an_engine_s_failure_is_that_request_s_alone(runtime: Runtime, backend: SettableBackend) -> None:
    for error in (EngineError("broken"), RuntimeError("worse"), MemoryError()):
        backend.error = error
        with pytest.raises(type(error)):
            answer(send(runtime, mode="m2"))  # no other mode may answer it
        assert [answer(send(runtime)).mode_id for _ in range(10)] == ["m2"] * 10
    assert runtime.pending == 0


def test_a_full_queue_refuses_the_next(bundle: Bundle, backend: SettableBackend) -> None:
    runtime = make_service(bundle, backend, max_queue=2).runtime
    first = occupy(runtime, backend)
    waiting = [send(runtime), send(runtime)]
    assert (runtime.queue_depth, runtime.pending) == (2, 3)
    with pytest.raises(QueueFull):
        send(runtime, 9.0)
    backend.release()
    assert [answer(one).mode_id for one in [first, *waiting]] == ["m2"] * 3
    assert 9.0 not in backend.first_numbers
    assert runtime.close(timeout_s=PATIENCE_S)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mode": "m9"}, UnknownMode),
        ({"budget_ms": 0.5}, BudgetImpossible),
        ({"min_accuracy": 0.99}, BudgetImpossible),
        ({"budget_ms": 5_000.0, "ago_ms": 4_950.0}, InfeasibleBudget),
    ],
)
def test_what_cannot_be_met_is_refused_on_arrival(
    runtime: Runtime, backend: SettableBackend, options: Any, error: Any
) -> None:
    with pytest.raises(error):
        send(runtime, **options)
    assert backend.runs == []
    assert runtime.pending == 0


def test_draining_still_takes_work_and_refusing_does_not(runtime: Runtime, backend: SettableBackend) -> None:
    runtime.drain()
    assert runtime.draining
    assert answer(send(runtime)).mode_id == "m2"
    runtime.refuse()
    with pytest.raises(Draining, match="takes no new work"):
        send(runtime, 9.0)
    assert 9.0 not in backend.first_numbers


def test_closing_finishes_what_was_accepted_and_frees_the_engines(bundle: Bundle, backend: SettableBackend) -> None:
    runtime = make_service(bundle, backend).runtime
    accepted = [occupy(runtime, backend), send(runtime), send(runtime)]
    assert not runtime.close(timeout_s=0.0)  # still at work: nothing is freed under its feet
    assert "backend" not in backend.closed
    backend.release()
    assert runtime.close(timeout_s=PATIENCE_S)
    assert [answer(one).mode_id for one in accepted] == ["m2"] * 3
    assert sorted(backend.closed) == ["backend", "m0", "m1", "m2"]


def test_what_was_measured_teaches_the_controller(runtime: Runtime) -> None:
    for _ in range(5):
        answer(send(runtime, mode="m2"))  # said to take 10 s, takes none
    wait_until(lambda: min(one.factor for one in runtime.controller.slowdown.classes) == FLOOR)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_meter_s_energy_is_shared_by_the_rows(bundle: Bundle, backend: SettableBackend, rows: int) -> None:
    class Constant(SimMeter):
        def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
            return 8.0

    runtime = make_service(bundle, backend, meter=Constant()).runtime
    result = answer(send(runtime, rows=rows))
    assert (result.energy_mj, result.energy_source) == (8.0 / rows, "sim")
    runtime.close()


def test_without_a_meter_the_profile_s_energy_is_an_estimate(bundle: Bundle, backend: SettableBackend) -> None:
    runtime = make_service(bundle, backend, energies_mj={"m0": 1.0, "m1": 5.0, "m2": 25.0}).runtime
    result = answer(send(runtime, budget_mj=6.0))
    assert (result.mode_id, result.reason) == ("m1", "energy")
    assert (result.energy_mj, result.energy_source) == (5.0, "estimate")
    runtime.close()


def test_every_mode_is_warmed_on_the_engine_s_own_thread(
    bundle: Bundle, backend: SettableBackend, runtime: Runtime
) -> None:
    backend.runs.clear()
    pool = Pool(bundle, backend, no_artifact)
    backend.runs.clear()
    warmed = Runtime(pool, Scheduler(runtime.controller), runtime.meter, warmup={"input": ones(value=3.0)})
    assert backend.first_numbers == [3.0] * 3 * WARMUP_RUNS
    warmed.close()


def test_a_failing_warm_up_fails_the_start(bundle: Bundle, backend: SettableBackend, runtime: Runtime) -> None:
    pool = Pool(bundle, backend, no_artifact)
    backend.error = EngineError("no memory for this mode")
    with pytest.raises(EngineError, match="no memory"):
        Runtime(pool, Scheduler(runtime.controller), runtime.meter, warmup={"input": ones()})


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin threads")
def test_only_the_engine_s_thread_is_pinned(bundle: Bundle, backend: SettableBackend, runtime: Runtime) -> None:
    allowed = os.sched_getaffinity(0)
    core = max(allowed)
    seen = []
    backend.run = lambda mode_id, answer, inputs: (seen.append(os.sched_getaffinity(0)), answer())[1]  # type: ignore
    pinned = Runtime(Pool(bundle, backend, no_artifact), Scheduler(runtime.controller), runtime.meter, engine_core=core)
    seen.clear()
    answer(send(pinned))
    assert seen == [{core}]
    assert os.sched_getaffinity(0) == allowed
    pinned.close()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin threads")
def test_a_core_that_is_not_there_is_refused(runtime: Runtime) -> None:
    with pytest.raises(SettingsError, match="cannot pin the engine to core 4095"):
        Runtime(runtime.pool, Scheduler(runtime.controller), runtime.meter, engine_core=4095)


def test_the_simulated_answer_points_at_the_largest_number(runtime: Runtime) -> None:
    x = ones(value=0.0)
    x[0, 0, 0, 3] = 1.0
    result = runtime.submit({"input": x}, RequestOptions(), time.monotonic()).result(PATIENCE_S)
    assert int(np.argmax(result.outputs["logits"])) == 3


def test_a_device_that_refuses_is_probed_and_seen_fast_again(
    bundle: Bundle, backend: SettableBackend, runtime: Runtime
) -> None:
    pool = Pool(bundle, backend, no_artifact)
    controller = Controller(bundle.modes, {mode.id: profile(SLOW_MS[mode.id]) for mode in bundle.modes})
    probed = Runtime(pool, Scheduler(controller), runtime.meter, warmup={"input": ones(value=7.0)})
    for at in range(RUN):  # believed a hundred times slower than its profile
        controller.observe("m0", 100 * SLOW_MS["m0"], 1, time.monotonic() - 1 + at * 0.01)
    backend.runs.clear()
    end = time.monotonic() + PATIENCE_S
    while controller.slowdown.factor > 1:
        with contextlib.suppress(InfeasibleBudget):
            answer(send(probed, 1.0, budget_ms=500.0))
        assert time.monotonic() < end, "the filter never learned that the device is fast again"
        time.sleep(0.01)
    assert ("m0", 7.0) in backend.runs  # the warm-up inputs on the fastest mode: a probe, not a request
    probed.close()


def test_a_probe_that_fails_leaves_the_engine_s_thread_alive(
    bundle: Bundle, backend: SettableBackend, runtime: Runtime
) -> None:
    pool = Pool(bundle, backend, no_artifact)
    probed = Runtime(pool, Scheduler(runtime.controller), runtime.meter, warmup={"input": ones(value=7.0)})
    backend.entered.clear()
    backend.error = MemoryError("not now")
    with probed._loop.changed:
        probed._loop.probe_soon(None)
    backend.wait_until_running()
    assert answer(send(probed, mode="m0")).mode_id == "m0"
    probed.close()


@pytest.fixture
def loading(bundle: Bundle) -> Iterator[LoadingBackend]:
    """An engine whose loading can be held."""
    one = LoadingBackend(bundle)
    yield one
    one.release()
    one.release_loads()


def test_a_mode_that_is_not_resident_comes_in_the_background_and_answers_from_then_on(
    bundle: Bundle, loading: LoadingBackend
) -> None:
    loading.hold_load("m2")
    runtime = make_service(bundle, loading, medians_ms=SLOW_MS, memory_kb=200).runtime
    assert [answer(send(runtime)).mode_id for _ in range(3)] == ["m0"] * 3  # while m2 is being loaded
    loading.wait_until_loading("m2")
    assert answer(send(runtime)).mode_id == "m0"
    loading.release_loads()
    wait_for(runtime.pool, lambda: "m2" in runtime.pool.residency.resident)
    assert answer(send(runtime)).mode_id == "m2"
    assert loading.loads == ["m0", "m2"]
    runtime.close()


def test_a_request_for_a_mode_that_is_not_resident_is_refused_at_once_and_may_come_again(
    bundle: Bundle, loading: LoadingBackend
) -> None:
    loading.hold_load("m1")
    runtime = make_service(bundle, loading, medians_ms=SLOW_MS, memory_kb=80).runtime
    with pytest.raises(NotResident, match="mode m1 is being loaded") as caught:
        send(runtime, mode="m1")
    assert (caught.value.wanted, caught.value.retry_after_ms) == ("m1", None)  # it was never loaded before
    loading.release_loads()
    wait_for(runtime.pool, lambda: "m1" in runtime.pool.residency.resident)
    assert answer(send(runtime, mode="m1")).mode_id == "m1"
    runtime.pool.evict("m1")
    with pytest.raises(NotResident) as caught:
        send(runtime, mode="m1")
    assert caught.value.retry_after_ms == runtime.pool.load_ms("m1")
    runtime.close()


def test_a_mode_that_is_evicted_while_a_request_waits_is_replaced_by_one_that_is_there(
    bundle: Bundle, loading: LoadingBackend
) -> None:
    runtime = make_service(bundle, loading, medians_ms=SLOW_MS, memory_kb=200).runtime
    runtime.pool.load_all(["m1", "m2"])
    first = occupy(runtime, loading)  # m2 is in use
    waiting = send(runtime, 7.0)
    loading.hold_load("m2")
    evicting = threading.Thread(target=runtime.pool.evict, args=("m2",))
    evicting.start()
    wait_for(runtime.pool, lambda: "m2" not in runtime.pool.residency.resident)
    loading.release()
    assert answer(first).mode_id == "m2"
    assert answer(waiting).mode_id == "m1"
    evicting.join(PATIENCE_S)
    loading.release_loads()
    runtime.close()


def test_a_mode_that_goes_between_its_choice_and_its_use_is_chosen_anew(
    bundle: Bundle, loading: LoadingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_service(bundle, loading, medians_ms=SLOW_MS, memory_kb=200).runtime
    runtime.pool.load_all(["m1", "m2"])
    use, gone = runtime.pool.use, []

    def late(mode_id: str) -> Any:
        if mode_id == "m2" and not gone:
            gone.append(mode_id)
            loading.hold_load("m2")
            runtime.pool.evict("m2")
        return use(mode_id)

    monkeypatch.setattr(runtime.pool, "use", late)
    assert answer(send(runtime)).mode_id == "m1"
    assert gone == ["m2"]
    loading.release_loads()
    runtime.close()


def test_serving_goes_on_through_any_number_of_evictions(bundle: Bundle, loading: LoadingBackend) -> None:
    runtime = make_service(bundle, loading, medians_ms=SLOW_MS, memory_kb=80, max_queue=200).runtime
    accepted = []  # m0 with m1, or with m2
    for number in range(60):
        for mode_id in ("m1", "m2", None):
            with contextlib.suppress(NotResident):
                accepted.append(send(runtime, float(number), mode=mode_id))
    answered = [future.exception(PATIENCE_S) for future in accepted]
    assert not [error for error in answered if error is not None and not isinstance(error, NotResident)]
    assert runtime.close(timeout_s=PATIENCE_S)
    assert loading.loads.count("m0") == 1
    assert sorted(loading.closed) == sorted([*loading.loads, "backend"])  # each once, none twice, none forgotten


def test_requests_that_wait_run_as_one_batch_and_each_gets_its_rows(bundle: Bundle, backend: SettableBackend) -> None:
    pool = Pool(bundle, backend, no_artifact)
    halved = {mode_id: Profile(ms, ms, ms, 9, batch_ms={4: 2 * ms}) for mode_id, ms in SLOW_MS.items()}
    scheduler: Scheduler[Ask] = Scheduler(Controller(bundle.modes, halved), batching=Batching(4))
    runtime = Runtime(pool, scheduler, NoMeter())
    backend.runs.clear()
    first = occupy(runtime, backend)
    inputs = [ones(rows, 0.0) for rows in (1, 2, 1)]
    for at, rows in enumerate(inputs):
        rows[:, 0, 0, at + 1] = 1.0  # the simulated answer points at the largest number
    waiting = [runtime.submit({"input": one}, RequestOptions(), time.monotonic()) for one in inputs]
    backend.release()
    answer(first)
    for at, future in enumerate(waiting):
        result = answer(future)
        assert result.batch_rows == 4
        assert np.argmax(result.outputs["logits"], axis=1).tolist() == [at + 1] * len(inputs[at])
    assert len(backend.runs) == 2
    runtime.close()


def test_a_cancelled_member_leaves_a_batch_before_it_runs(bundle: Bundle, backend: SettableBackend) -> None:
    pool = Pool(bundle, backend, no_artifact)
    halved = {mode_id: Profile(ms, ms, ms, 9, batch_ms={4: 2 * ms}) for mode_id, ms in SLOW_MS.items()}
    scheduler: Scheduler[Ask] = Scheduler(Controller(bundle.modes, halved), batching=Batching(4))
    runtime = Runtime(pool, scheduler, NoMeter())
    occupy(runtime, backend)
    waiting = [send(runtime, float(at)) for at in range(3)]
    assert waiting[1].cancel()
    backend.release()
    assert [answer(waiting[at]).batch_rows for at in (0, 2)] == [2, 2]
    runtime.close()


@pytest.mark.parametrize("sure", [True, False])
def test_a_cascade_answers_early_or_escalates(bundle: Bundle, backend: SettableBackend, sure: bool) -> None:
    rule = Rule("m0", "m2", "margin", -1.0 if sure else 1e9, 0.003, 0.05, 10_000, 0.3, 0.001, "ab" * 32)
    cascade = Cascade([rule], "logits")
    profiles = {mode.id: profile(SLOW_MS[mode.id]) for mode in bundle.modes}
    scheduler: Scheduler[Ask] = Scheduler(Controller(bundle.modes, profiles), escalation=Escalation(cascade))
    runtime = Runtime(Pool(bundle, backend, no_artifact), scheduler, NoMeter(), cascade=cascade)
    backend.runs.clear()
    result = answer(send(runtime))
    assert (result.mode_id, result.reason) == ("m0" if sure else "m2", "cascade")
    assert [mode_id for mode_id, _ in backend.runs] == (["m0"] if sure else ["m0", "m2"])
    assert runtime.guard is not None
    runtime.close()


def test_a_defect_of_the_scheduler_is_told_and_the_engine_s_thread_goes_on(
    bundle: Bundle, backend: SettableBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_service(bundle, backend, medians_ms=SLOW_MS).runtime
    factor_of, broken = runtime.controller.predictor.factor_of, [True]

    def defective(mode_id: str) -> float:
        if broken:
            broken.clear()
            raise ZeroDivisionError("a defect")
        return factor_of(mode_id)

    monkeypatch.setattr(runtime.controller.predictor, "factor_of", defective)
    with pytest.raises(EngineError, match="the scheduler failed"):
        answer(send(runtime))
    assert answer(send(runtime)).mode_id == "m2"
    assert runtime.pending == 0
    runtime.close()


def test_a_defect_after_a_run_leaves_nobody_without_an_answer(
    bundle: Bundle, backend: SettableBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_service(bundle, backend, medians_ms=SLOW_MS).runtime
    loop: Any = runtime._loop

    class Defective:
        @property
        def source(self) -> str:
            raise OSError("no such sensor")

    whole, loop._meter = loop._meter, Defective()
    with pytest.raises(EngineError, match="met a defect"):
        answer(send(runtime))
    loop._meter = whole
    assert answer(send(runtime)).mode_id == "m2"
    assert runtime.pending == 0
    runtime.close()


def test_what_cannot_be_learned_costs_nobody_an_answer(
    bundle: Bundle, backend: SettableBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_service(bundle, backend, medians_ms=SLOW_MS).runtime

    def no_thread(*args: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(runtime.controller, "observe", no_thread)
    assert [answer(send(runtime)).mode_id for _ in range(3)] == ["m2"] * 3
    assert runtime.alive
    runtime.close()


@pytest.mark.parametrize("reading", [-5.0, float("nan"), float("inf"), 0.0, "raise"])
def test_a_meter_that_lies_or_dies_costs_nobody_an_answer(
    bundle: Bundle, backend: SettableBackend, reading: Any
) -> None:
    class Broken(SimMeter):
        def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
            if reading == "raise":
                raise OSError("the sensor is gone")
            return float(reading)

    runtime = make_service(bundle, backend, meter=Broken(), energies_mj={"m0": 1.0, "m1": 5.0, "m2": 25.0}).runtime
    result = answer(send(runtime))
    assert (result.energy_mj, result.energy_source) == (25.0, "estimate")
    runtime.close()


def test_work_that_expires_is_counted_as_missed_like_in_the_simulation(
    runtime: Runtime, backend: SettableBackend, clock: LateClock
) -> None:
    first = occupy(runtime, backend)
    waiting = send(runtime, 7.0, budget_ms=50_000.0)
    before = runtime._scheduler._outlook._arrivals.answer
    clock.ahead_s = 60.0
    assert waiting.cancel()  # as the server's timer does
    assert runtime._scheduler._outlook._arrivals.answer > before
    left = send(runtime, 8.0)
    counted = runtime._scheduler._outlook._arrivals.answer
    assert left.cancel()  # its client has gone before any deadline
    assert runtime._scheduler._outlook._arrivals.answer == counted
    backend.release()
    answer(first)


@pytest.mark.parametrize(("sure", "energy_mj"), [(True, 1.0), (False, 26.0)])
def test_a_cascade_s_energy_is_of_what_ran_and_its_second_mode_stays_while_the_first_runs(
    bundle: Bundle, backend: SettableBackend, sure: bool, energy_mj: float
) -> None:
    rule = Rule("m0", "m2", "margin", -1.0 if sure else 1e9, 0.003, 0.05, 10_000, 0.3, 0.001, "ab" * 32)
    cascade = Cascade([rule], "logits")
    energies = {"m0": 1.0, "m1": 5.0, "m2": 25.0}
    profiles = {mode.id: profile(SLOW_MS[mode.id], energies[mode.id]) for mode in bundle.modes}
    scheduler: Scheduler[Ask] = Scheduler(Controller(bundle.modes, profiles), escalation=Escalation(cascade))
    pool = Pool(bundle, backend, no_artifact)
    runtime = Runtime(pool, scheduler, NoMeter(), cascade=cascade)
    held, run = [], backend.run
    backend.run = lambda mode_id, *how: (held.append((mode_id, pool._users["m2"])), run(mode_id, *how))[1]  # type: ignore
    assert answer(send(runtime)).energy_mj == energy_mj
    assert held[0] == ("m0", 1)
    runtime.close()


def test_a_probe_runs_the_mode_that_a_request_was_refused_for(
    bundle: Bundle, backend: SettableBackend, runtime: Runtime
) -> None:
    probed = Runtime(
        Pool(bundle, backend, no_artifact),
        Scheduler(runtime.controller),
        runtime.meter,
        warmup={"input": ones(value=7.0)},
    )
    backend.runs.clear()
    backend.entered.clear()
    with probed._loop.changed:
        probed._loop.probe_soon("m1")
    backend.wait_until_running()
    assert backend.runs == [("m1", 7.0)]
    probed.close()


def test_what_a_run_taught_waits_for_its_reply_but_never_for_the_next_request(
    bundle: Bundle, backend: SettableBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wenet_runtime.engine_loop.SETTLE_S", 600.0)
    runtime = make_service(bundle, backend, medians_ms=SLOW_MS).runtime
    learned: List[str] = []
    finished = runtime._scheduler.finished

    def noted(*of: Any) -> None:
        learned.append(of[0].choice.mode_id)
        finished(*of)

    monkeypatch.setattr(runtime._scheduler, "finished", noted)
    assert answer(send(runtime, mode="m0")).mode_id == "m0"
    assert learned == []  # whoever was answered goes first
    assert runtime.pending == 0
    assert answer(send(runtime, mode="m1")).mode_id == "m1"
    assert learned == ["m0"]  # before the next was chosen for
    runtime.observe_overhead(0.1)  # its reply has left
    wait_until(lambda: learned == ["m0", "m1"])
    answer(send(runtime, mode="m2"))
    assert runtime.close(timeout_s=PATIENCE_S)  # nor for an end
    assert learned == ["m0", "m1", "m2"]
