"""NVML's meter, on a double of the library."""

import sys
import time
from typing import Any, Dict, List

import pytest

from tests.runtime.meter_doubles import NvmlDouble
from tests.runtime.patience import wait_until
from wenet_runtime.board import Board
from wenet_runtime.errors import MeterError
from wenet_runtime.meters.base import OK
from wenet_runtime.meters.nvml import EnergyCounter, NvmlMeter
from wenet_runtime.meters.sampler import CounterReset

PC = Board()


def planted(monkeypatch: pytest.MonkeyPatch, **how: Any) -> NvmlDouble:
    double = NvmlDouble(**how)
    monkeypatch.setitem(sys.modules, "pynvml", double)
    return double


def watts(meter: NvmlMeter) -> float:
    power = meter.power()
    assert power is not None
    return power.watts


def test_energy_is_the_counter_s_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    double = planted(monkeypatch, energy_mj=5_000, power_mw=None)
    meter = NvmlMeter(board=PC, interval_s=0.001)
    wait_until(lambda: meter.power() is not None)
    start_s = time.monotonic()
    wait_until(lambda: meter._trace._times[-1] > start_s)
    double.energy_mj = 7_500
    wait_until(lambda: meter._trace._joules[-1] > 0.0)  # its watts are there for a millisecond only
    wait_until(lambda: watts(meter) == 0.0)  # what holds from the last reading to now is nothing
    assert meter.energy_mj(start_s, time.monotonic()) == pytest.approx(2500.0)
    state = meter.state()
    assert (meter.source, state.status) == ("nvml", OK)
    assert "the GPU only, not the whole machine, by its counter" in state.detail
    power = meter.power()
    assert power is not None
    assert power.rail == "double of a GPU"
    meter.close()
    meter.close()
    assert double.users == 0


def test_a_gpu_without_a_counter_is_measured_by_its_power(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, energy_mj=None, power_mw=45_000)
    meter = NvmlMeter(board=PC, interval_s=0.001)
    wait_until(lambda: meter.power() is not None)
    power, now_s = meter.power(), time.monotonic()
    assert power is not None
    assert power.watts == 45.0
    assert meter.energy_mj(now_s, now_s + 0.1) == pytest.approx(4500.0)
    assert "may be a mean over a second" in meter.state().detail
    meter.close()


def test_a_gpu_that_tells_neither_is_refused_and_the_library_left(monkeypatch: pytest.MonkeyPatch) -> None:
    double = planted(monkeypatch, energy_mj=None, power_mw=None)
    with pytest.raises(MeterError, match="neither its energy nor its power"):
        NvmlMeter(board=PC)
    assert double.users == 0


@pytest.mark.parametrize(
    ("visible", "gpu"), [("", "GPU-a"), ("1,0", "GPU-b"), ("GPU-b", "GPU-b"), ("0", "GPU-a"), ("none", "GPU-a")]
)
def test_the_gpu_is_the_first_that_cuda_may_use(visible: str, gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = planted(monkeypatch)
    NvmlMeter(board=PC, environ={"CUDA_VISIBLE_DEVICES": visible}).close()
    assert double.opened == [gpu]


@pytest.mark.parametrize(
    ("environ", "gpus", "doubted"),
    [
        ({}, ["GPU-a", "GPU-b"], True),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["GPU-a", "GPU-b"], True),
        ({}, ["GPU-a"], False),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, ["GPU-a", "GPU-b"], False),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b"}, ["GPU-a", "GPU-b"], False),
    ],
)
def test_where_cuda_may_count_otherwise_it_says_so(
    environ: Dict[str, str], gpus: List[str], doubted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch).gpus = gpus
    meter = NvmlMeter(board=PC, environ=environ, interval_s=0.001)
    wait_until(lambda: meter.power() is not None)
    assert ("set CUDA_DEVICE_ORDER=PCI_BUS_ID" in meter.state().detail) is doubted
    meter.close()


def test_a_part_of_a_gpu_is_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    double = planted(monkeypatch)
    double.gpus = ["GPU-a", "MIG-c"]
    NvmlMeter(board=PC, environ={"CUDA_VISIBLE_DEVICES": "MIG-c"}).close()
    assert double.opened == ["MIG-c"]


def test_a_gpu_that_is_not_there_is_refused_and_the_library_left(monkeypatch: pytest.MonkeyPatch) -> None:
    double = planted(monkeypatch)
    with pytest.raises(MeterError, match=r"NVML cannot read a GPU \(Invalid Argument\)"):
        NvmlMeter(board=PC, environ={"CUDA_VISIBLE_DEVICES": "7"})
    assert double.users == 0


def test_a_jetson_is_refused_before_the_library_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MeterError, match="no power of a Jetson: choose ina3221 or tegrastats"):
        NvmlMeter(board=Board(tegra=True))


def test_without_a_driver_or_the_library_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, driver=False)
    with pytest.raises(MeterError, match=r"no NVIDIA driver answers \(Driver Not Loaded\)"):
        NvmlMeter(board=PC)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MeterError, match=r"pip install 'wenet-runtime\[gpu\]'"):
        NvmlMeter(board=PC)


def test_a_counter_that_is_set_back_is_an_error_and_goes_on_from_there() -> None:
    values = iter((100, 600, 50, 150))
    counter = EnergyCounter(lambda: next(values))
    assert [counter.joules(), counter.joules()] == [0.0, 0.5]
    with pytest.raises(CounterReset, match="from 600 to 50 mJ"):
        counter.joules()
    assert counter.joules() == pytest.approx(0.1)
