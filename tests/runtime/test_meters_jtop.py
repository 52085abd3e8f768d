"""jetson-stats' meter, on a double of its client."""

import subprocess
import sys
from typing import Dict

import pytest

from tests.runtime.meter_doubles import JtopDouble
from tests.runtime.patience import wait_until
from wenet_runtime.errors import MeterError
from wenet_runtime.meters.base import OK, UNAVAILABLE
from wenet_runtime.meters.jtop import JtopMeter

NANO = {"POM_5V_IN": 2000, "POM_5V_GPU": 80, "POM_5V_CPU": 400}
ORIN = {"VDD_GPU_SOC": 2000, "VDD_CPU_CV": 800, "VIN_SYS_5V0": 3000, "VDDQ_VDD2_1V8AO": 600}


def planted(monkeypatch: pytest.MonkeyPatch, rails_mw: Dict[str, int], *, service: bool = True) -> JtopDouble:
    double = JtopDouble(rails_mw, service=service)
    monkeypatch.setitem(sys.modules, "jtop", double)
    return double


@pytest.mark.parametrize(
    ("rails_mw", "source", "watts"),
    [(NANO, "rail:POM_5V_IN", 2.0), (ORIN, "rail:VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0", 5.8)],
)
def test_the_total_is_by_our_rules_and_not_by_its_own(
    rails_mw: Dict[str, int], source: str, watts: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = planted(monkeypatch, dict(rails_mw))
    meter = JtopMeter(interval_s=0.001)
    assert meter.source == source
    wait_until(lambda: meter.power() is not None)
    power = meter.power()
    assert power is not None
    assert power.watts == pytest.approx(watts)
    assert meter.state().status == OK
    meter.close()
    meter.close()
    assert double.clients[0].closed.is_set()
    assert not meter._thread.is_alive()


def test_a_configured_rail_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, NANO)
    meter = JtopMeter("POM_5V_GPU", interval_s=0.001)
    wait_until(lambda: meter.power() is not None)
    meter.close()
    assert meter.source == "rail:POM_5V_GPU"


@pytest.mark.parametrize(
    ("rails_mw", "why"),
    [
        ({}, r"not among jtop's rails \(none\)"),
        ({"VDD_CPU": 5}, r"not among jtop's rails \(VDD_CPU\): name one with --power-rail"),
        ({"POM_5V_IN": 2000, "POM_5V_GPU": 9000}, "labels are rotated"),
    ],
)
def test_rails_that_are_not_the_whole_board_are_refused_and_the_client_closed(
    rails_mw: Dict[str, int], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = planted(monkeypatch, rails_mw)
    with pytest.raises(MeterError, match=why):
        JtopMeter(interval_s=0.001)
    assert double.clients[0].closed.is_set()


def test_what_its_client_gives_and_nobody_expects_is_an_error_of_the_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    double = planted(monkeypatch, NANO)
    double.jtop.power = {}
    with pytest.raises(MeterError, match=r"gives no rails \('rail'\)"):
        JtopMeter(interval_s=0.001)
    assert double.clients[0].closed.is_set()


def test_a_service_that_does_not_run_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, NANO, service=False)
    with pytest.raises(MeterError, match=r"\(jtop.service is not active\): `sudo systemctl start jtop`"):
        JtopMeter()


def test_a_service_that_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    double = planted(monkeypatch, NANO)
    meter = JtopMeter(interval_s=0.001)
    double.service = False
    wait_until(lambda: meter.state().status == UNAVAILABLE)
    assert "start it again" in meter.state().detail
    assert (meter.power(), meter.energy_mj(0.0, 1.0)) == (None, None)
    meter.close()


def test_labels_that_prove_wrong_under_load_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    double = planted(monkeypatch, dict(NANO))
    meter = JtopMeter(interval_s=0.001)
    double.rails_mw["POM_5V_GPU"] = 9000
    wait_until(lambda: meter.state().status == UNAVAILABLE)
    assert "labels are rotated" in meter.state().detail
    meter.close()


def test_one_reading_that_looks_wrong_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    double = planted(monkeypatch, dict(NANO))
    meter = JtopMeter(interval_s=0.001)
    meter.close()  # so that this test alone asks
    monkeypatch.setattr(type(meter._client), "ok", lambda one: True)
    for _ in range(20):
        double.rails_mw["POM_5V_GPU"] = 9000
        assert meter._watts() is None
        double.rails_mw["POM_5V_GPU"] = 80
        assert meter._watts() == 2.0


def test_it_is_imported_by_nothing_else() -> None:
    everything = (
        "import sys, pkgutil, importlib, wenet_runtime.meters as m\n"
        "for one in pkgutil.iter_modules(m.__path__): importlib.import_module('wenet_runtime.meters.' + one.name)\n"
        "import wenet_runtime.meters.auto as auto\n"
        "assert 'jtop' not in auto.ORDER\n"
        "assert 'jtop' not in sys.modules and 'pynvml' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", everything], check=True)


def test_without_jetson_stats_its_licence_is_pointed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", None)
    with pytest.raises(MeterError, match=r"what its licence means, then pip install 'wenet-runtime\[jtop\]'"):
        JtopMeter()
