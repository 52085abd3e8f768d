"""Metrics: Prometheus' text, the names of the API, and counts of what happened."""

import time
from typing import Dict

from prometheus_client.parser import text_string_to_metric_families

from tests.runtime.fakes import Client, SettableBackend, make_service, ones
from wenet_runtime import __version__
from wenet_runtime.budget import RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.meters.sim import SimMeter
from wenet_runtime.service.app import create_app

NAMES = {
    "wenet_requests", "wenet_request_duration_seconds", "wenet_queue_duration_seconds",
    "wenet_inference_duration_seconds", "wenet_budget_requests", "wenet_prediction_error_ratio",
    "wenet_mode_switches", "wenet_energy_joules", "wenet_mode_active", "wenet_queue_depth",
    "wenet_inflight_requests", "wenet_power_watts", "wenet_power_sample_age_seconds", "wenet_build_info",
    "wenet_bundle_info", "wenet_mode_resident", "wenet_mode_memory_bytes", "wenet_mode_load_seconds",
    "wenet_decisions", "wenet_throttled",
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


def test_throttling_is_absent_until_it_is_known(held_client: Client) -> None:
    assert held_client.service is not None
    assert not [name for name in read(held_client) if name.startswith("wenet_throttled")]
    held_client.service.metrics.throttled("thermal", False)
    assert read(held_client)["wenet_throttled thermal"] == 0
    held_client.service.metrics.throttled("thermal", True)
    assert read(held_client)["wenet_throttled thermal"] == 1


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
