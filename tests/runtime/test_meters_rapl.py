"""Processors' energy counters: which are added up, over their ends, and who may read them."""

import errno
import time
from pathlib import Path
from typing import Dict, Tuple

import pytest

from tests.runtime import sysfs_trees as trees
from tests.runtime.patience import wait_until
from tests.runtime.sysfs_trees import write
from wenet_runtime.errors import MeterError
from wenet_runtime.meters import rapl
from wenet_runtime.meters.base import OK
from wenet_runtime.meters.rapl import Counters, RaplMeter, find_zones
from wenet_runtime.meters.sampler import CounterReset

ZONES: Dict[str, Tuple[str, int]] = {
    "intel-rapl:0": ("package-0", 1_000_000),
    "intel-rapl:0:0": ("core", 1),
    "intel-rapl:0:1": ("dram", 2_000_000),
    "intel-rapl:1": ("package-1", 3_000_000),
    "intel-rapl:1:0": ("dram", 4_000_000),
    "intel-rapl:2": ("psys", 5),
    "intel-rapl-mmio:0": ("package-0", 6),
}


def add_uj(folder: Path, zone: str, uj: int) -> None:
    path = folder / zone / "energy_uj"
    write(path, int(path.read_text()) + uj)


def watts(meter: RaplMeter) -> float:
    power = meter.power()
    assert power is not None
    return power.watts


def test_packages_and_their_memory_are_counted_and_nothing_twice(tmp_path: Path) -> None:
    trees.rapl(tmp_path, ZONES)
    assert [one.name for one in find_zones(tmp_path)] == ["package-0", "dram-0", "package-1", "dram-1"]


def test_what_all_counters_counted_since_the_reading_before_is_added(tmp_path: Path) -> None:
    folder = trees.rapl(tmp_path, ZONES)
    counters = Counters(find_zones(tmp_path))
    assert counters.joules() == 0.0
    add_uj(folder, "intel-rapl:0", 500_000)
    add_uj(folder, "intel-rapl:1:0", 250_000)
    add_uj(folder, "intel-rapl:0:0", 9_000_000)  # part of its package
    assert counters.joules() == pytest.approx(0.75)
    assert counters.joules() == 0.0


def test_a_counter_that_begins_again_goes_on_from_its_end(tmp_path: Path) -> None:
    folder = trees.rapl(tmp_path, {"intel-rapl:0": ("package-0", 9_900_000)}, range_uj=10_000_000)
    counters = Counters(find_zones(tmp_path))
    counters.joules()
    write(folder / "intel-rapl:0/energy_uj", 400_000)
    assert counters.joules() == pytest.approx(0.5)


@pytest.mark.parametrize("range_uj", [0, 2 * 10**11])
def test_a_counter_that_is_set_back_is_an_error_and_goes_on_from_there(range_uj: int, tmp_path: Path) -> None:
    folder = trees.rapl(tmp_path, {"intel-rapl:0": ("package-0", 9_900_000)}, range_uj=range_uj)
    counters = Counters(find_zones(tmp_path))
    counters.joules()
    write(folder / "intel-rapl:0/energy_uj", 400_000)
    with pytest.raises(CounterReset, match="package-0 went from 9900000 to 400000"):
        counters.joules()
    add_uj(folder, "intel-rapl:0", 100_000)
    assert counters.joules() == pytest.approx(0.1)


def test_a_counter_that_fails_takes_nothing_from_the_next_reading(tmp_path: Path) -> None:
    folder = trees.rapl(tmp_path, ZONES)
    counters = Counters(find_zones(tmp_path))
    counters.joules()
    add_uj(folder, "intel-rapl:0", 500_000)
    content = (folder / "intel-rapl:1/energy_uj").read_text()
    write(folder / "intel-rapl:1/energy_uj", "")
    with pytest.raises(ValueError):
        counters.joules()
    (folder / "intel-rapl:1/energy_uj").write_text(content)
    assert counters.joules() == pytest.approx(0.5)


def test_energy_power_and_a_state_that_says_what_is_not_seen(tmp_path: Path) -> None:
    folder = trees.rapl(tmp_path, ZONES)
    meter = RaplMeter(sysfs=tmp_path, interval_s=0.001)
    wait_until(lambda: meter.power() is not None)
    start_s = time.monotonic()
    wait_until(lambda: meter._trace._times[-1] > start_s)
    staged = folder / "staged"
    staged.write_text("2000000")
    staged.replace(folder / "intel-rapl:0/energy_uj")  # a file that is written in place is empty for a moment
    wait_until(lambda: meter._trace._joules[-1] > 0.0 and watts(meter) == 0.0)  # nothing holds from then to now
    assert meter.energy_mj(start_s, time.monotonic()) == pytest.approx(1000.0)
    power, state = meter.power(), meter.state()
    meter.close()
    assert power is not None
    assert power.rail == "package-0+dram-0+package-1+dram-1"
    assert (meter.source, state.status) == ("rapl", OK)
    assert "not the whole machine" in state.detail
    assert state.resolution_mw is None


@pytest.mark.parametrize("zones", [{}, {"intel-rapl:2": ("psys", 5)}, {"intel-rapl:0:0": ("dram", 5)}])
def test_no_package_is_said_to_be_none(zones: Dict[str, Tuple[str, int]], tmp_path: Path) -> None:
    trees.rapl(tmp_path, zones)
    with pytest.raises(MeterError, match="no energy counter of a processor under"):
        RaplMeter(sysfs=tmp_path)


def test_counters_that_only_root_may_read_are_said_to_be_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.rapl(tmp_path, ZONES)

    def refused(path: Path) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(rapl, "read_number", refused)
    with pytest.raises(MeterError) as error:
        RaplMeter(sysfs=tmp_path)
    assert str(error.value).startswith("permission: ")
    assert "sudo chmod o+r /sys/class/powercap/intel-rapl:*/energy_uj" in str(error.value)


def test_a_counter_that_holds_no_number_is_refused(tmp_path: Path) -> None:
    folder = trees.rapl(tmp_path, ZONES)
    write(folder / "intel-rapl:0/energy_uj", "much")
    with pytest.raises(MeterError, match="cannot be read"):
        RaplMeter(sysfs=tmp_path)
