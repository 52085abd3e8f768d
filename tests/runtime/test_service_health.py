"""GET /v2/health: what is the matter, always answered, whatever a meter does."""

import json
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.runtime.fakes import Client, SettableBackend, make_service
from wenet_runtime.bundle import Bundle
from wenet_runtime.meters.base import MeterState, Power
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.meters.sim import SimMeter
from wenet_runtime.service.app import create_app
from wenet_runtime.service.health import health, without_home

NAN = float("nan")


class OwnMeter(NoMeter):
    """Somebody's meter, which says what a test wants."""

    source = "rail:own"

    def __init__(self, state: Any, power: Any = None, idle_w: Any = None) -> None:
        super().__init__()
        self.said, self.gives, self.idle_w = state, power, idle_w

    def state(self) -> MeterState:
        return self._or_raise(self.said)  # type: ignore[no-any-return]

    def power(self) -> Optional[Power]:
        return self._or_raise(self.gives)  # type: ignore[no-any-return]

    @staticmethod
    def _or_raise(said: Any) -> Any:
        if isinstance(said, Exception):
            raise said
        return said


def asked(bundle: Bundle, backend: SettableBackend, meter: Any) -> Any:
    service = make_service(bundle, backend, meter=meter)
    response = Client(create_app(service, meter_name="own")).get("/v2/health")
    service.runtime.close()
    assert response.status_code == 200
    return response.json()["meter"]


def test_it_says_what_serves_and_how_the_meter_is(bundle: Bundle, backend: SettableBackend) -> None:
    service = make_service(bundle, backend, meter=SimMeter())
    service.runtime.pool.take_out("m1", "left out by choice")
    service.runtime.pool.evict("m1")
    found = Client(create_app(service, meter_name="sim")).get("/v2/health").json()
    assert found == {
        "live": True,
        "ready": True,
        "draining": False,
        "bundle": {},
        "engine": {"trouble": None, "stuck_s": 0.0},
        "meter": {
            "name": "sim",
            "source": "sim",
            "status": "ok",
            "detail": "simulated: a constant power while the engine is busy",
            "restarts": 0,
            "interval_s": None,
            "stale_after_s": None,
            "resolution_mw": None,
            "rail": "sim",
            "watts": 5.0,
            "age_s": 0.0,
            "idle_w": 2.0,
        },
        "modes": {"resident": ["m2", "m0"], "out": {"m1": "left out by choice"}},
    }
    service.runtime.close()


def test_it_is_answered_while_the_server_drains_and_after(bundle: Bundle, backend: SettableBackend) -> None:
    service = make_service(bundle, backend)
    client = Client(create_app(service))
    service.runtime.drain()
    response = client.get("/v2/health")
    assert response.status_code == 200
    found = response.json()
    assert (found["live"], found["ready"], found["draining"]) == (True, False, True)
    assert client.get("/v2/health/ready").status_code == 503
    service.runtime.close()
    assert client.get("/v2/health").json()["modes"]["resident"] == []


def test_a_server_without_a_mode_is_not_ready(bundle: Bundle, backend: SettableBackend) -> None:
    service = make_service(bundle, backend)
    for mode in bundle.modes:
        service.runtime.pool.evict(mode.id)
    client = Client(create_app(service))
    assert client.get("/v2/health").json()["ready"] is False
    assert client.get("/v2/health/ready").status_code == 503
    service.runtime.close()


def test_readings_are_told_with_their_age_and_resolution(bundle: Bundle, backend: SettableBackend) -> None:
    state = MeterState("stale", "the child ended", 7, 0.1, 1.0, 42.0)
    found = asked(bundle, backend, OwnMeter(state, Power(3.0, "OWN", 2.5), 1.25))
    assert found == {
        "name": "own", "source": "rail:own", "status": "stale", "detail": "the child ended", "restarts": 7,
        "interval_s": 0.1, "stale_after_s": 1.0, "resolution_mw": 42.0, "rail": "OWN",
        "watts": 3.0, "age_s": 2.5, "idle_w": 1.25,
    }  # fmt: skip


@pytest.mark.parametrize("state", [OSError("no bus"), None, "fine", 7, AttributeError("state")])
def test_a_meter_that_cannot_say_how_it_is_is_said_to_be_unavailable(
    state: Any, bundle: Bundle, backend: SettableBackend
) -> None:
    found = asked(bundle, backend, OwnMeter(state, OSError("no bus")))
    assert found["status"] == "unavailable"
    assert found["detail"].startswith("it does not say how it is (")
    assert found["age_s"] is None


def test_numbers_that_can_be_none_are_null(bundle: Bundle, backend: SettableBackend) -> None:
    state = MeterState("ok", "", -3, NAN, float("inf"), -1.0)
    found = asked(bundle, backend, OwnMeter(state, Power(3.0, "OWN", NAN), "two"))
    assert [found[name] for name in ("interval_s", "stale_after_s", "resolution_mw", "age_s", "idle_w")] == [None] * 5
    assert found["restarts"] == 0


def test_no_place_in_somebody_s_home_is_told(
    bundle: Bundle, backend: SettableBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    details = MeterState("stale", "no program /home/somebody/bin/tegrastats"), OSError("/home/somebody/x")
    for said in details:
        found = asked(bundle, backend, OwnMeter(said))
        assert "somebody" not in json.dumps(found)
        assert "~/" in found["detail"]
    service = make_service(bundle, backend)
    service.runtime.pool.take_out("m0", "/home/somebody/bundle is damaged")
    assert health(service.runtime)["modes"]["out"] == {"m0": "~/bundle is damaged"}
    service.runtime.close()


def test_a_home_at_the_root_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    assert without_home("chmod o+r /sys/x") == "chmod o+r /sys/x"
