"""Rails from sysfs: every board's tree, whatever its driver, and what is said where it cannot be read."""

import errno
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from tests.runtime import sysfs_trees as trees
from tests.runtime.patience import wait_until
from tests.runtime.sysfs_trees import Channel, write
from wenet_runtime.errors import MeterError
from wenet_runtime.meters import sysfs as sysfs_files
from wenet_runtime.meters.base import OK, STALE, STARTING, UNAVAILABLE
from wenet_runtime.meters.ina3221 import HOPELESS_LOOKS, LOOK_EVERY, BoardReader, Ina3221Meter, find_rails

FAST_S = 0.001
ORIN = "VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0"


@pytest.fixture
def opened() -> Iterator[Callable[..., Ina3221Meter]]:
    """Opens meters and closes them again."""
    meters: List[Ina3221Meter] = []

    def open_one(root: Path, **how: Any) -> Ina3221Meter:
        meters.append(Ina3221Meter(sysfs=root, interval_s=FAST_S, **how))
        return meters[-1]

    yield open_one
    for meter in meters:
        meter.close()


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """Ends of names of files that may not be read; a test adds to them."""
    names: List[str] = []
    read = sysfs_files.read_file

    def refusing(path: Path) -> bytes:
        if any(path.name.endswith(one) for one in names):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(sysfs_files, "read_file", refusing)
    return names


BOARDS: List[Tuple[str, Callable[[Path], Any], str, float]] = [
    ("Nano", trees.nano, "POM_5V_IN", 2.0),
    ("TX2", trees.tx2, "VDD_IN", 3.04),
    ("Xavier NX, JetPack 4", lambda root: trees.xavier_nx(root, jetpack=4), "VDD_IN", 4.08),
    ("Xavier NX, JetPack 5", lambda root: trees.xavier_nx(root, jetpack=5), "VDD_IN", 4.08),
    ("Orin Nano", trees.orin_nano, "VDD_IN", 4.83616),
    ("Orin Nano, after another boot", lambda root: trees.orin_nano(root, number=11), "VDD_IN", 4.83616),
    ("AGX Xavier", trees.agx_xavier, "GPU+CPU+SOC+CV+VDDRQ+SYS5V", 4.736),
    ("AGX Orin", trees.agx_orin, ORIN, 12.616674),
]


@pytest.mark.parametrize(("plant", "rail", "watts"), [one[1:] for one in BOARDS], ids=[one[0] for one in BOARDS])
def test_every_board_s_whole_power_is_found_by_its_rails_names(
    plant: Callable[[Path], Any], rail: str, watts: float, tmp_path: Path, opened: Any
) -> None:
    plant(tmp_path)
    meter = opened(tmp_path)
    assert meter.source == f"rail:{rail}"
    wait_until(lambda: meter.power() is not None)
    power, now_s = meter.power(), time.monotonic()
    assert power is not None
    assert (power.watts, power.rail) == (pytest.approx(watts), rail)
    assert meter.energy_mj(now_s, now_s + 0.1) == pytest.approx(watts * 100)
    assert (meter.state().status, meter.idle_w) == (OK, None)


def test_a_chip_seen_twice_is_one_and_unconnected_channels_none(tmp_path: Path) -> None:
    trees.agx_orin(tmp_path)
    assert list(find_rails(tmp_path)) == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]


def test_shunt_voltages_and_their_sum_are_no_rails(tmp_path: Path) -> None:
    trees.orin_nano(tmp_path)
    assert set(find_rails(tmp_path)) == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}


@pytest.mark.parametrize("seen", ["bus/i2c/devices", "bus/i2c/drivers"])
def test_a_chip_is_found_by_its_bus_or_by_its_driver(seen: str, tmp_path: Path) -> None:
    trees.nano(tmp_path)
    for link in (tmp_path / seen).glob("**/6-0040"):
        link.unlink()
    assert "POM_5V_IN" in find_rails(tmp_path)


def test_a_driver_without_files_of_power_has_those_it_is_made_of(tmp_path: Path, opened: Any) -> None:
    device = trees.nano(tmp_path)
    for path in device.glob("in_power*"):
        path.unlink()
    meter = opened(tmp_path)
    wait_until(lambda: meter.power() is not None)
    assert meter.power().watts == pytest.approx(2.0)


def test_the_file_of_power_is_taken_where_there_is_one(tmp_path: Path, opened: Any) -> None:
    device = trees.nano(tmp_path)
    write(device / "in_power0_input", 2042)
    meter = opened(tmp_path)
    wait_until(lambda: meter.power() is not None)
    assert meter.power().watts == pytest.approx(2.042)


def test_readings_are_followed_and_their_resolution_is_told(tmp_path: Path, opened: Any) -> None:
    device = trees.nano(tmp_path)
    meter = opened(tmp_path)
    wait_until(lambda: meter.power() is not None)
    for mw in (2042, 2168):
        write(device / "in_power0_input", mw)
        wait_until(lambda mw=mw: meter.power().watts == mw / 1e3)  # type: ignore[misc]
    assert meter.state().resolution_mw == pytest.approx(42.0)


def test_no_sensor_is_said_to_be_none(tmp_path: Path) -> None:
    trees.add_other_chips(tmp_path)
    with pytest.raises(MeterError, match=r"no INA3221 power sensor under .*bus/i2c: this is no Jetson"):
        Ina3221Meter(sysfs=tmp_path)


def test_a_sensor_without_names_is_said_to_name_none(tmp_path: Path) -> None:
    trees.add_chip(tmp_path, "ina3221", "1-0040")
    with pytest.raises(MeterError, match=r"1-0040 under .* names no rail"):
        find_rails(tmp_path)


@pytest.mark.parametrize(
    ("plant", "files", "remedy"),
    [
        (trees.nano, ["rail_name_0"], "ina3221x/*/iio:device*/{rail_name_*,in_power*_input}`"),
        (trees.nano, ["_input"], "ina3221x/*/iio:device*/{rail_name_*,in_power*_input}`"),
        (trees.orin_nano, ["in2_label"], "ina3221/*/hwmon/hwmon*/{in*_label,in*_input,curr*_input}`"),
        (trees.orin_nano, ["curr1_input"], "ina3221/*/hwmon/hwmon*/{in*_label,in*_input,curr*_input}`"),
    ],
)
def test_files_that_may_not_be_read_are_a_state_with_its_remedy(
    plant: Callable[[Path], Any], files: List[str], remedy: str, tmp_path: Path, forbidden: List[str]
) -> None:
    plant(tmp_path)
    forbidden.extend(files)
    with pytest.raises(MeterError) as refused:
        Ina3221Meter(sysfs=tmp_path)
    assert str(refused.value).startswith("permission: ")
    assert "uid 0" in str(refused.value)
    assert remedy in str(refused.value)
    assert "sudo chmod o+r /sys/bus/i2c/drivers/" in str(refused.value)


def test_of_a_board_that_is_measured_by_its_input_only_that_must_be_readable(
    tmp_path: Path, forbidden: List[str], opened: Any
) -> None:
    trees.nano(tmp_path)
    forbidden.extend(["power1_input", "voltage1_input", "power2_input", "voltage2_input"])
    meter = opened(tmp_path)
    wait_until(lambda: meter.state().status == OK)


def test_power_that_may_not_be_read_is_made_of_what_may(tmp_path: Path, forbidden: List[str], opened: Any) -> None:
    trees.nano(tmp_path)
    forbidden.append("power0_input")
    meter = opened(tmp_path)
    wait_until(lambda: meter.power() is not None)
    assert meter.power().watts == pytest.approx(2.0)


def test_rails_that_are_not_known_to_be_the_whole_board_are_named(tmp_path: Path) -> None:
    trees.add_hwmon(tmp_path, "1-0040", (Channel("VDD_CPU"), Channel("VDD_GPU")))
    with pytest.raises(MeterError, match=r"VDD_CPU, VDD_GPU are the whole board is not known: .* --power-rail"):
        Ina3221Meter(sysfs=tmp_path)


def test_a_configured_rail_is_taken_and_one_that_is_not_there_refused(tmp_path: Path, opened: Any) -> None:
    trees.agx_orin(tmp_path)
    meter = opened(tmp_path, rail="VDD_CPU_CV+VDDQ_VDD2_1V8AO")
    assert meter.source == "rail:VDD_CPU_CV+VDDQ_VDD2_1V8AO"
    wait_until(lambda: meter.power() is not None)
    assert meter.power().watts == pytest.approx(0.78 * 3.437 + 0.77)
    with pytest.raises(MeterError, match="--power-rail VDD_IN: there is no such rail; found are VDD_GPU_SOC, "):
        Ina3221Meter("VDD_IN", sysfs=tmp_path)


def rotate(device: Path) -> None:
    """As on a carrier board whose input is wired to the GPU's channel."""
    for at, label in enumerate(("POM_5V_GPU", "POM_5V_CPU", "POM_5V_IN")):
        write(device / f"rail_name_{at}", label)


def test_rotated_labels_are_told_with_their_remedy_and_give_no_energy(tmp_path: Path, opened: Any) -> None:
    rotate(trees.nano(tmp_path))
    meter = opened(tmp_path)
    start_s = time.monotonic()
    wait_until(lambda: meter.state().status != STARTING)
    state = meter.state()
    assert state.status == UNAVAILABLE
    assert "labels are rotated" in state.detail
    assert "--power-rail" in state.detail
    assert (meter.power(), meter.energy_mj(start_s, time.monotonic())) == (None, None)


@pytest.mark.parametrize("rail", ["POM_5V_GPU", "POM_5V_IN"])
def test_a_configured_rail_of_a_board_with_rotated_labels_is_believed(rail: str, tmp_path: Path, opened: Any) -> None:
    rotate(trees.nano(tmp_path))
    meter = opened(tmp_path, rail=rail)
    wait_until(lambda: meter.power() is not None)
    points = len(meter._trace._times)
    wait_until(lambda: len(meter._trace._times) > points + 2 * LOOK_EVERY * HOPELESS_LOOKS)
    assert meter.state().status == OK


class TestBoardReader:
    """Looks at the labels, reading by reading."""

    @pytest.fixture
    def device(self, tmp_path: Path) -> Path:
        return trees.nano(tmp_path)

    @pytest.fixture
    def reader(self, device: Path, tmp_path: Path) -> BoardReader:
        return BoardReader(find_rails(tmp_path), ["POM_5V_IN"], doubted=True)

    def test_readings_are_withheld_from_the_first_suspicion_to_the_last(
        self, device: Path, reader: BoardReader
    ) -> None:
        found = []
        write(device / "in_power1_input", 9000)
        for _ in range(LOOK_EVERY * (HOPELESS_LOOKS - 1)):
            found.append(reader.watts())
        write(device / "in_power1_input", 80)  # a sudden load that the input was not yet read with
        assert found == [None] * len(found)
        assert [reader.watts() for _ in range(LOOK_EVERY)] == [2.0] * LOOK_EVERY

    def test_suspicions_count_only_in_a_row(self, device: Path, reader: BoardReader) -> None:
        for look in range(3 * HOPELESS_LOOKS):
            write(device / "in_power1_input", 80 if look % HOPELESS_LOOKS == 0 else 9000)
            for _ in range(LOOK_EVERY):
                reader.watts()

    def test_so_many_in_a_row_end_it(self, device: Path, reader: BoardReader) -> None:
        write(device / "in_power1_input", 9000)
        for _ in range(LOOK_EVERY * (HOPELESS_LOOKS - 1)):
            assert reader.watts() is None
        with pytest.raises(MeterError, match="POM_5V_GPU 9000 mW"):
            reader.watts()

    def test_only_what_is_needed_is_read_between_looks(self, device: Path, reader: BoardReader) -> None:
        assert reader.watts() == 2.0
        write(device / "in_power1_input", "no number")
        write(device / "in_power2_input", 9000)
        assert [reader.watts() for _ in range(LOOK_EVERY - 1)] == [2.0] * (LOOK_EVERY - 1)
        assert reader.watts() is None  # and a rail that is only looked at may fail


@pytest.mark.parametrize("content", ["", "no number"])
def test_a_rail_that_fails_leaves_a_gap_and_is_never_zero(content: str, tmp_path: Path, opened: Any) -> None:
    first, _ = trees.agx_xavier(tmp_path)
    meter = opened(tmp_path)
    wait_until(lambda: meter.power() is not None)
    write(first / "in_power1_input", content)
    wait_until(lambda: meter.state().status == STALE)
    now_s = time.monotonic()
    assert meter.energy_mj(now_s - 0.001, now_s) is None
    assert meter.power().watts == pytest.approx(4.736)  # the last that was known, and its age is told
    assert meter.power().age_s > 0.4
    assert "the sensor cannot be read" in meter.state().detail
    write(first / "in_power1_input", 912)
    wait_until(lambda: meter.state().status == OK)
    assert meter.power().watts == pytest.approx(4.736)


def test_a_sensor_that_does_not_answer_yet_is_waited_for(tmp_path: Path, opened: Any) -> None:
    device = trees.nano(tmp_path)
    write(device / "in_power0_input", "")
    meter = opened(tmp_path)
    wait_until(lambda: meter.state().detail != "")
    assert meter.state().status == STARTING
    write(device / "in_power0_input", 2000)
    wait_until(lambda: meter.state().status == OK)


def test_50_readings_a_second_are_asked_for(tmp_path: Path) -> None:
    trees.nano(tmp_path)
    meter = Ina3221Meter(sysfs=tmp_path)
    meter.close()
    assert (meter.state().interval_s, meter.state().stale_after_s) == (0.02, 0.5)
