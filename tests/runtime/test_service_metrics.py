"""Metrics: Prometheus' text, the names of the API, and counts of what happened."""

import dataclasses
import time
from pathlib import Path
from typing import Any, Dict, Optional

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.runtime.fakes import PATIENCE_S, Client, SettableBackend, make_service, ones
from tests.supernets import write_test_bundle
from wenet_runtime import __version__
from wenet_runtime.budget import RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.guard import GuardState
from wenet_runtime.meters.base import MeterState, Power
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.meters.sim import SimMeter
from wenet_runtime.power_budget import PowerBudget
from wenet_runtime.result import Result
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.app import create_app
from wenet_runtime.service.device_watch import Callbacks, DeviceWatch
from wenet_runtime.service.metrics import OUTCOMES, Metrics
from wenet_runtime.thermal import ThermalTrend

NAMES = {
    "wenet_requests", "wenet_request_duration_seconds", "wenet_queue_duration_seconds",
    "wenet_inference_duration_seconds", "wenet_budget_requests", "wenet_prediction_error_ratio",
    "wenet_mode_switches", "wenet_energy_joules", "wenet_mode_active", "wenet_queue_depth",
    "wenet_inflight_requests", "wenet_power_watts", "wenet_power_sample_age_seconds", "wenet_build_info",
    "wenet_bundle_info", "wenet_mode_resident", "wenet_mode_memory_bytes", "wenet_mode_load_seconds",
    "wenet_decisions", "wenet_throttled", "wenet_decisions_dropped", "wenet_guard_alarms",
    "wenet_power_budget_watts", "wenet_power_spent_watts", "wenet_temperature_celsius",
    "wenet_meter_up", "wenet_meter_restarts", "wenet_power_resolution_watts", "wenet_bundle_swaps",
    "wenet_mode_faults",
    # Of any process, on Linux.
    "process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds",
    "process_cpu_seconds", "process_open_fds", "process_max_fds",
}  # fmt: skip


def read(client: Client) -> Dict[str, float]:
    """Every sample by its name with its labels' values."""
    response = client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            found[" ".join([sample.name, *(sample.labels[key] for key in sorted(sample.labels))])] = sample.value
    return found


def test_the_names_are_those_of_the_api(held_client: Client) -> None:
    text = held_client.get("/metrics").text
    assert {
        family.name for family in text_string_to_metric_families(text) if not family.name.endswith("_created")
    } == NAMES


# As the facts of serving name them: dashboards of others are built on this.
LABELS = {
    "wenet_requests_total": {"outcome"},
    "wenet_request_duration_seconds_bucket": {"mode", "le"},
    "wenet_queue_duration_seconds_bucket": {"le"},
    "wenet_inference_duration_seconds_bucket": {"mode", "le"},
    "wenet_budget_requests_total": {"met"},
    "wenet_prediction_error_ratio_bucket": {"le"},
    "wenet_mode_active": {"mode"},
    "wenet_mode_switches_total": {"to", "reason"},
    "wenet_queue_depth": set(),
    "wenet_inflight_requests": set(),
    "wenet_power_watts": {"rail"},
    "wenet_energy_joules_total": {"rail"},
    "wenet_power_sample_age_seconds": set(),
    "wenet_throttled": {"cause"},
    "wenet_build_info": {"version"},
    "wenet_bundle_info": {"sha256"},
}


def test_every_metric_of_the_api_is_there_with_its_labels_and_buckets(bundle: Bundle, backend: SettableBackend) -> None:
    watch = DeviceWatch(Callbacks(), limits={})
    watch.throttled = False
    service = make_service(bundle, backend, meter=SimMeter(busy_w=3.0))
    metrics = service.metrics = Metrics(bundle, service.runtime, watch=watch)
    client = Client(create_app(service))
    client.infer(headers={"WeNet-Budget-Ms": "5000"})
    client.infer(headers={"WeNet-Mode": "m0"})
    samples = [
        sample for family in text_string_to_metric_families(metrics.render().decode()) for sample in family.samples
    ]
    service.runtime.close()
    assert {one.name: set(one.labels) for one in samples if one.name in LABELS} == LABELS
    limits = [1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, float("inf")]
    for name in ("request", "queue", "inference"):
        buckets = [one for one in samples if one.name == f"wenet_{name}_duration_seconds_bucket"]
        assert [float(one.labels["le"]) for one in buckets if one.labels.get("mode", "m0") == "m0"] == limits


def test_what_may_happen_is_counted_from_the_start_as_not_happened_yet(held_client: Client) -> None:
    found = read(held_client)
    for outcome in ("ok", "late", "degraded", "expired", "client_error", "error", "cancelled"):
        assert found[f"wenet_requests_total {outcome}"] == 0
    for limit in ("deadline", "queue"):
        assert found[f"wenet_requests_total rejected_{limit}"] == 0
    assert (found["wenet_budget_requests_total true"], found["wenet_budget_requests_total false"]) == (0, 0)


def test_when_the_process_was_started_is_told(held_client: Client) -> None:
    assert time.time() - read(held_client)["process_start_time_seconds"] < 86_400


def test_every_mode_s_memory_is_told_loaded_or_not(held_client: Client, bundle: Bundle) -> None:
    assert held_client.service is not None
    held_client.service.runtime.pool.evict("m1")
    found = read(held_client)
    for mode in bundle.modes:
        assert found[f"wenet_mode_memory_bytes {mode.id}"] == 4 * mode.params  # what it would take if it were real
        assert found[f"wenet_mode_resident {mode.id}"] == (mode.id != "m1")
        assert found[f"wenet_mode_load_seconds {mode.id}"] > 0


def test_requests_are_counted_by_outcome_and_mode(held_client: Client, bundle: Bundle) -> None:
    held_client.infer()
    held_client.infer(headers={"WeNet-Mode": "m0", "WeNet-Budget-Ms": "5000"})
    held_client.infer(headers={"WeNet-Budget-Ms": "0.5"})
    held_client.infer(headers={"WeNet-Budget-Ms": "x"})
    found = read(held_client)
    assert found["wenet_requests_total ok"] == 2
    assert found["wenet_requests_total rejected_deadline"] == 1
    assert found["wenet_requests_total client_error"] == 1
    assert found["wenet_request_duration_seconds_count m0"] == 1
    assert found["wenet_inference_duration_seconds_count m2"] == 1
    assert found["wenet_queue_duration_seconds_count"] == 2
    assert found["wenet_budget_requests_total true"] == 1
    assert found["wenet_mode_switches_total pinned m0"] == 1
    assert (found["wenet_mode_active m0"], found["wenet_mode_active m2"]) == (1, 0)
    assert found[f"wenet_build_info {__version__}"] == 1
    assert found[f"wenet_bundle_info {bundle.sha256}"] == 1


def test_decisions_are_counted_by_their_reason(held_client: Client) -> None:
    held_client.infer()
    held_client.infer(headers={"WeNet-Mode": "m0"})
    held_client.infer(headers={"WeNet-Budget-Ms": "0.5"})
    held_client.infer(headers={"WeNet-Budget-Ms": "x"})  # says nothing about a budget
    found = {name: value for name, value in read(held_client).items() if name.startswith("wenet_decisions_total")}
    assert found == {
        "wenet_decisions_total fits": 1,
        "wenet_decisions_total pinned": 1,
        "wenet_decisions_total budget-impossible": 1,
    }


def parsed(metrics: Metrics) -> Dict[str, float]:
    """The same, of metrics that are rendered here."""
    families = text_string_to_metric_families(metrics.render().decode())
    samples = [sample for family in families for sample in family.samples]
    return {" ".join([one.name, *(one.labels[key] for key in sorted(one.labels))]): one.value for one in samples}


def answer(held_client: Client, **changed: Any) -> Result:
    """The result of one executed request, changed in some members."""
    assert held_client.service is not None
    runtime = held_client.service.runtime
    result = runtime.submit({"input": ones()}, RequestOptions(), time.monotonic()).result(PATIENCE_S)
    return dataclasses.replace(result, **changed)


def test_throttling_and_temperatures_are_absent_until_they_are_known(runtime: Runtime, bundle: Bundle) -> None:
    watch = DeviceWatch(Callbacks(), limits={})
    metrics = Metrics(bundle, runtime, watch=watch)
    assert not [name for name in parsed(metrics) if name.startswith(("wenet_throttled", "wenet_temperature"))]
    watch.throttled = False
    assert parsed(metrics)["wenet_throttled thermal"] == 0
    watch.throttled = True
    watch.trends = {"CPU-therm": ThermalTrend(), "silent": ThermalTrend()}
    watch.trends["CPU-therm"].observe(51.5, 1.0)
    found = parsed(metrics)
    assert found["wenet_throttled thermal"] == 1
    assert {name: value for name, value in found.items() if name.startswith("wenet_temperature")} == {
        "wenet_temperature_celsius CPU-therm": 51.5
    }


def test_decisions_that_were_not_written_are_counted(runtime: Runtime, bundle: Bundle) -> None:
    log = DecisionLog()
    metrics = Metrics(bundle, runtime, log=log)
    assert parsed(metrics)["wenet_decisions_dropped_total"] == 0
    log.dropped = 7
    assert parsed(metrics)["wenet_decisions_dropped_total"] == 7


def test_the_power_budget_and_the_guard_are_shown_where_there_are_any(
    runtime: Runtime, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("wenet_power_budget_watts", "wenet_power_spent_watts", "wenet_guard_alarms_total")
    metrics = Metrics(bundle, runtime)
    assert not [name for name in parsed(metrics) if name in names]
    budget = PowerBudget(5.0, 60.0, 2.0)
    monkeypatch.setattr(Runtime, "power", property(lambda one: budget.state))
    monkeypatch.setattr(Runtime, "guard", property(lambda one: GuardState(True, 1.0, 3, 1, 1)))
    found = parsed(metrics)
    assert (found["wenet_power_budget_watts"], found["wenet_guard_alarms_total"]) == (5.0, 3.0)
    assert "wenet_power_spent_watts" not in found  # nothing has passed
    budget.tick(0.0)
    budget.tick(10.0)
    assert parsed(metrics)["wenet_power_spent_watts"] == pytest.approx(2.0)


class BrokenMeter(NoMeter):
    """Says something else each time it is asked."""

    def __init__(self, *says: Any) -> None:
        super().__init__()
        self.says = list(says)

    def power(self) -> Optional[Power]:
        said = self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        return said  # type: ignore[no-any-return]


def test_a_broken_meter_costs_its_gauge_and_no_more(
    bundle: Bundle, backend: SettableBackend, caplog: pytest.LogCaptureFixture
) -> None:
    fine, nan, inf = Power(3.0, "rail", 0.5), float("nan"), float("inf")
    broken = [OSError("no bus"), OSError("no bus"), Power(nan, "rail", 0.0), Power(inf, "rail", 0.0), "3 W"]
    says = [fine, *broken, Power(-1.0, "rail", 0.0), Power(4.0, "rail", nan)]
    service = make_service(bundle, backend, meter=BrokenMeter(*says))
    found = [parsed(service.metrics) for _ in says]
    assert [one.get("wenet_power_watts rail") for one in found] == [3.0, *[None] * 6, 4.0]
    assert [one.get("wenet_power_sample_age_seconds") for one in found] == [0.5, *[None] * 7]
    assert all("wenet_queue_depth" in one for one in found)
    assert [one.message for one in caplog.records if "OSError" in one.message] == [
        "the meter gives no power: OSError: no bus"
    ]
    service.runtime.close()


def test_a_rail_s_energy_stands_under_the_name_of_its_power(held_client: Client) -> None:
    assert held_client.service is not None
    metrics = held_client.service.metrics
    for source in ("rail:VDD_IN", "nvml", "estimate"):
        result = answer(held_client, energy_mj=2000.0, energy_source=source)
        metrics.answered(result, latency_ms=1.0, rows=3, met=None, in_time=True)
    found = {name: value for name, value in parsed(metrics).items() if name.startswith("wenet_energy_joules_total")}
    assert found == {f"wenet_energy_joules_total {rail}": 6.0 for rail in ("VDD_IN", "nvml", "estimate")}


@pytest.mark.parametrize("energy_mj", [-1.0, float("nan"), float("inf"), -float("inf")])
def test_an_impossible_energy_is_left_out_and_all_else_is_counted(held_client: Client, energy_mj: float) -> None:
    assert held_client.service is not None
    metrics = held_client.service.metrics
    metrics.answered(answer(held_client, energy_mj=2000.0), latency_ms=1.0, rows=1, met=None, in_time=True)
    metrics.answered(answer(held_client, energy_mj=energy_mj), latency_ms=1.0, rows=1, met=None, in_time=True)
    found = parsed(metrics)
    assert found["wenet_requests_total ok"] == 2
    assert found["wenet_energy_joules_total none"] == 2.0


def test_a_late_answer_of_the_bundle_before_is_counted_too(held_client: Client) -> None:
    assert held_client.service is not None
    metrics = held_client.service.metrics
    metrics.answered(answer(held_client, mode_id="m9"), latency_ms=1.0, rows=1, met=None, in_time=True)
    assert parsed(metrics)["wenet_requests_total ok"] == 1
    assert "wenet_mode_active m9" not in parsed(metrics)


@pytest.mark.parametrize(
    ("met", "in_time", "reason", "outcome"),
    [
        (True, True, "fits", "ok"),
        (None, True, "fits", "ok"),
        (False, True, "degraded", "degraded"),  # it missed its energy, not its deadline
        (False, True, "fits", "ok"),
        (False, False, "fits", "late"),
        (False, False, "degraded", "late"),
    ],
)
def test_only_what_came_after_its_deadline_is_late(
    held_client: Client, met: Optional[bool], in_time: bool, reason: str, outcome: str
) -> None:
    assert held_client.service is not None
    metrics = held_client.service.metrics
    metrics.answered(answer(held_client, reason=reason), latency_ms=1.0, rows=1, met=met, in_time=in_time)
    found = {name: value for name, value in parsed(metrics).items() if name.startswith("wenet_requests_total")}
    assert found == {f"wenet_requests_total {one}": one == outcome for one in OUTCOMES}


def test_waiting_and_running_work_is_shown(held_client: Client, backend: SettableBackend) -> None:
    assert held_client.service is not None
    runtime = held_client.service.runtime
    found = read(held_client)
    assert (found["wenet_queue_depth"], found["wenet_inflight_requests"]) == (0, 0)
    backend.hold()
    futures = [runtime.submit({"input": ones()}, RequestOptions(), time.monotonic())]
    backend.wait_until_running()
    futures.append(runtime.submit({"input": ones()}, RequestOptions(), time.monotonic()))
    found = read(held_client)
    backend.release()
    assert (found["wenet_queue_depth"], found["wenet_inflight_requests"]) == (1, 2)
    assert all(one.result(10) for one in futures)


def test_unknown_power_and_energy_are_absent_and_not_zero(held_client: Client) -> None:
    held_client.infer()
    assert not [name for name in read(held_client) if name.startswith(("wenet_power_watts", "wenet_energy_joules_t"))]


def test_known_power_and_energy_carry_their_rail(bundle: Bundle, backend: SettableBackend) -> None:
    service = make_service(bundle, backend, meter=SimMeter(busy_w=3.0))
    client = Client(create_app(service))
    client.infer()
    found = read(client)
    assert found["wenet_power_watts sim"] == 3.0
    assert found["wenet_energy_joules_total sim"] > 0
    service.runtime.close()


class StatedMeter(NoMeter):
    """Says of itself what a test wants to see."""

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.said = state

    def state(self) -> MeterState:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("state", "up", "restarts", "step_w"),
    [
        (MeterState("ok", restarts=3, resolution_mw=42.0), 1.0, 3.0, 0.042),
        (MeterState("stale", restarts=4), 0.0, 4.0, None),
        (MeterState("unavailable", resolution_mw=float("nan")), 0.0, 0.0, None),
        (MeterState("starting", restarts=-1, resolution_mw=float("inf")), 0.0, 0.0, None),
        (OSError("no bus"), 0.0, 0.0, None),
        (None, 0.0, 0.0, None),
    ],
)
def test_how_the_meter_is_can_be_watched_and_alerted_on(
    state: Any, up: float, restarts: float, step_w: Optional[float], bundle: Bundle, backend: SettableBackend
) -> None:
    service = make_service(bundle, backend, meter=StatedMeter(state))
    found = parsed(service.metrics)
    service.runtime.close()
    assert found["wenet_meter_up none"] == up
    assert found["wenet_meter_restarts_total"] == restarts
    assert found.get("wenet_power_resolution_watts") == step_w


def test_another_bundle_s_modes_take_the_place_of_those_before_and_counters_go_on(
    held_client: Client, bundle: Bundle, tmp_path: Path
) -> None:
    assert held_client.service is not None
    metrics = held_client.service.metrics
    held_client.infer()
    write_test_bundle(tmp_path / "other", levels=(16,))
    other = Bundle(tmp_path / "other")
    service = make_service(other, SettableBackend(other))
    metrics.follow(other, service.runtime)
    metrics.swapped("done")
    found = read(held_client)
    service.runtime.close()
    assert {name: value for name, value in found.items() if name.startswith("wenet_bundle_info")} == {
        f"wenet_bundle_info {other.sha256}": 1.0
    }
    modes = {name.split()[1] for name in found if name.startswith("wenet_mode_resident ")}
    assert modes == {mode.id for mode in other.modes} < {mode.id for mode in bundle.modes}
    assert found["wenet_requests_total ok"] == 1.0
    assert found["wenet_bundle_swaps_total done"] == 1.0
