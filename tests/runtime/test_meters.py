"""The contract of every meter: what is unknown is None, never 0. Sensors are composed trees, libraries doubles."""

import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pytest

from tests.runtime import sysfs_trees as trees
from tests.runtime.fake_tegrastats import installed
from tests.runtime.meter_doubles import JtopDouble, NvmlDouble
from tests.runtime.patience import wait_until
from wenet_runtime.board import Board
from wenet_runtime.errors import MeterError
from wenet_runtime.meters import METERS
from wenet_runtime.meters.base import OK, STALE, STARTING, UNAVAILABLE, Meter
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.meters.sim import SimMeter
from wenet_runtime.registry import load

LINE = "RAM 900/3964MB (lfb 366x4MB) CPU [10%@102] POM_5V_IN 2000/2000 POM_5V_GPU 40/40 POM_5V_CPU 119/119\n"


def with_ina3221(root: Path, monkeypatch: pytest.MonkeyPatch) -> Dict[str, Any]:
    trees.nano(root)
    return {"sysfs": root}


def with_rapl(root: Path, monkeypatch: pytest.MonkeyPatch) -> Dict[str, Any]:
    folder, counted = trees.rapl(root, {"intel-rapl:0": ("package-0", 0)}), iter(range(0, 10**12, 10**5))
    monkeypatch.setattr("wenet_runtime.meters.rapl.read_number", lambda path: next(counted))
    return {"sysfs": folder.parent.parent}


def with_tegrastats(root: Path, monkeypatch: pytest.MonkeyPatch) -> Dict[str, Any]:
    (root / "lines.log").write_text(LINE)
    return {"command": installed(root / "bin", "--log", root / "lines.log"), "interval_ms": 10, "first_reading_s": 60.0}


def with_nvml(root: Path, monkeypatch: pytest.MonkeyPatch) -> Dict[str, Any]:
    monkeypatch.setitem(sys.modules, "pynvml", NvmlDouble(energy_mj=None, power_mw=45_000))
    return {"board": Board()}


def with_jtop(root: Path, monkeypatch: pytest.MonkeyPatch) -> Dict[str, Any]:
    monkeypatch.setitem(sys.modules, "jtop", JtopDouble({"VDD_IN": 5000, "VDD_SOC": 1400}))
    return {}


PLANTED: Dict[str, Callable[[Path, pytest.MonkeyPatch], Dict[str, Any]]] = {
    "ina3221": with_ina3221,
    "tegrastats": with_tegrastats,
    "nvml": with_nvml,
    "rapl": with_rapl,
    "jtop": with_jtop,
    "none": lambda root, monkeypatch: {},
    "sim": lambda root, monkeypatch: {},
}


@pytest.fixture(params=sorted(METERS))
def meter(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
    how = PLANTED[request.param](tmp_path, monkeypatch)
    one: Meter = load(METERS, request.param, kind="meter", error=MeterError)(**how)
    wait_until(lambda: one.power() is not None or one.source == "none")
    yield one
    one.close()


class TestEveryMeter:
    """What `meters.base` promises."""

    def test_it_names_its_source(self, meter: Meter) -> None:
        assert meter.source in ("none", "sim", "nvml", "rapl") or meter.source.startswith("rail:")

    def test_energy_of_a_window_is_positive_and_unknown_without_a_source(self, meter: Meter) -> None:
        start_s = time.monotonic()
        found = []

        def known() -> bool:
            found.append(meter.energy_mj(start_s, time.monotonic()))
            return (found[-1] or 0) > 0

        if meter.source == "none":
            assert not known()
            assert found == [None]
        else:
            wait_until(known)

    def test_energy_of_a_window_that_nobody_watched_is_unknown_or_simulated(self, meter: Meter) -> None:
        start_s = time.monotonic() - 3600.0
        assert meter.source == "sim" or meter.energy_mj(start_s, start_s + 0.5) is None

    def test_power_is_positive_named_and_dated_or_unknown(self, meter: Meter) -> None:
        power = meter.power()
        assert power is None or (power.watts > 0 and power.rail and power.age_s >= 0)

    def test_a_source_of_none_knows_nothing_and_any_other_something(self, meter: Meter) -> None:
        assert (meter.power() is not None) == (meter.source != "none")

    def test_it_says_how_it_is_and_why_not_better(self, meter: Meter) -> None:
        state = meter.state()
        assert state.status in (OK, STARTING, STALE, UNAVAILABLE)
        assert (state.status == UNAVAILABLE) == (meter.source == "none")
        assert state.detail or state.status == OK
        assert state.restarts == 0

    def test_the_idle_board_is_known_only_where_it_is_made_up(self, meter: Meter) -> None:
        assert (meter.idle_w is not None) == (meter.source == "sim")

    def test_closing_twice_is_harmless(self, meter: Meter) -> None:
        source = meter.source
        meter.close()
        meter.close()
        assert meter.source == source


def test_no_meter_never_says_zero() -> None:
    assert NoMeter().energy_mj(0.0, 1.0) is None
    assert NoMeter().power() is None


def test_no_meter_says_why_there_is_none() -> None:
    assert NoMeter().state().detail == "no meter was asked for"
    assert NoMeter("no sensor").state().detail == "no sensor"


def test_the_simulated_meter_is_power_times_time() -> None:
    assert SimMeter(busy_w=3.0).energy_mj(10.0, 10.5) == pytest.approx(1500.0)
    assert SimMeter(busy_w=3.0).energy_mj(10.5, 10.0) == 0.0
    power = SimMeter(busy_w=3.0).power()
    assert power is not None
    assert (power.watts, power.rail, power.age_s) == (3.0, "sim", 0.0)
    assert "simulated" in SimMeter().state().detail
