"""Readiness over HTTP: of the server, of its model, of one mode."""

import pytest

from tests.runtime.fakes import Client, LoadingBackend, check_problem, make_service, wait_for
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.app import create_app

MODEL = "/v2/models/tiny"
READY = [f"{MODEL}/ready", f"{MODEL}/versions/m1/ready"]


@pytest.mark.parametrize("path", READY)
def test_a_model_and_a_resident_mode_are_ready(held_client: Client, path: str) -> None:
    assert held_client.get(path).json() == {"name": "tiny", "ready": True}


@pytest.mark.parametrize("path", READY)
def test_nothing_is_ready_while_the_server_drains(held_client: Client, path: str) -> None:
    assert held_client.service is not None
    held_client.service.runtime.drain()
    check_problem(held_client.get(path), "draining", 503)
    assert held_client.get("/v2/health/live").json() == {"live": True}


def test_a_mode_that_is_not_resident_is_not_ready_and_its_model_is(bundle: Bundle) -> None:
    backend = LoadingBackend(bundle)
    backend.hold_load("m1")
    service = make_service(bundle, backend, memory_kb=60)
    client = Client(create_app(service))
    assert client.get(f"{MODEL}/ready").status_code == 200
    assert client.get(f"{MODEL}/versions/m0/ready").status_code == 200
    check_problem(client.get(f"{MODEL}/versions/m1/ready"), "not-ready", 503)
    client.infer(headers={"WeNet-Mode": "m1"})  # wanted, so it is loaded
    backend.release_loads()
    wait_for(service.runtime.pool, lambda: "m1" in service.runtime.pool.residency.resident)
    assert client.get(f"{MODEL}/versions/m1/ready").status_code == 200
    service.runtime.close()


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/modes"])
def test_a_probe_may_ask_for_the_head_alone(held_client: Client, path: str) -> None:
    assert held_client.request("HEAD", path).status_code == 200
