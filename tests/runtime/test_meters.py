"""The contract of every meter: what is unknown is None, never 0."""

from typing import Any, Iterator

import pytest

from wenet_runtime.errors import MeterError
from wenet_runtime.meters import METERS
from wenet_runtime.meters.base import Meter
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.meters.sim import SimMeter
from wenet_runtime.registry import load


@pytest.fixture(params=sorted(METERS))
def meter(request: Any) -> Iterator[Meter]:
    one: Meter = load(METERS, request.param, kind="meter", error=MeterError)()
    yield one
    one.close()


class TestEveryMeter:
    """What `meters.base` promises."""

    def test_it_names_its_source(self, meter: Meter) -> None:
        assert meter.source in ("none", "sim", "nvml", "rapl") or meter.source.startswith("rail:")

    def test_energy_of_a_window_is_positive_or_unknown(self, meter: Meter) -> None:
        energy_mj = meter.energy_mj(100.0, 100.5)
        assert energy_mj is None or energy_mj > 0

    def test_power_is_positive_named_and_dated_or_unknown(self, meter: Meter) -> None:
        power = meter.power()
        assert power is None or (power.watts > 0 and power.rail and power.age_s >= 0)

    def test_a_source_of_none_knows_nothing_and_any_other_something(self, meter: Meter) -> None:
        known = meter.energy_mj(100.0, 100.5) is not None
        assert known == (meter.source != "none")

    def test_closing_twice_is_harmless(self, meter: Meter) -> None:
        source = meter.source
        meter.close()
        meter.close()
        assert meter.source == source


def test_no_meter_never_says_zero() -> None:
    assert NoMeter().energy_mj(0.0, 1.0) is None
    assert NoMeter().power() is None


def test_the_simulated_meter_is_power_times_time() -> None:
    assert SimMeter(busy_w=3.0).energy_mj(10.0, 10.5) == pytest.approx(1500.0)
    assert SimMeter(busy_w=3.0).energy_mj(10.5, 10.0) == 0.0
    power = SimMeter(busy_w=3.0).power()
    assert power is not None
    assert (power.watts, power.rail, power.age_s) == (3.0, "sim", 0.0)
