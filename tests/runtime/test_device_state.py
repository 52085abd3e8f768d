"""Allowed clocks, cooling and the power setting are what the system's files say, and unknown where they do not."""

from pathlib import Path

import pytest

from wenet_runtime.conditions import Conditions
from wenet_runtime.device_state import DeviceState, read_limits, read_state

NAMES = "# < POWER_MODEL ID=1 NAME=OLD >\n< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE 1\n< POWER_MODEL ID=1 NAME=5W >\n"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(root: Path) -> DeviceState:
    return read_state(root, power_status=root / "status", power_names=root / "names")


def test_allowed_clocks_are_read_per_policy_and_device(tmp_path: Path) -> None:
    put(tmp_path / "devices/system/cpu/cpufreq/policy0/scaling_max_freq", "1479000\n")
    put(tmp_path / "devices/system/cpu/cpufreq/policy4/scaling_max_freq", "918000\n")
    put(tmp_path / "devices/system/cpu/cpufreq/policy6/scaling_max_freq", "<unknown>")
    put(tmp_path / "class/devfreq/57000000.gpu/max_freq", "921600000\n")
    put(tmp_path / "class/devfreq/other/max_freq", "0\n")
    assert read(tmp_path).allowed_mhz == {"cpu0": 1479.0, "cpu4": 918.0, "57000000.gpu": 921.6}


@pytest.mark.parametrize(
    ("devices", "cooled"),
    [
        ([("thermal-cpufreq-0", "0"), ("pwm-fan", "255")], False),
        ([("thermal-cpufreq-0", "2")], True),
        ([("Processor", "0"), ("gpu-balanced", "1")], True),
        ([("intel_powerclamp", "-1")], False),
        ([("pwm-fan", "3"), ("LCD", "40"), ("TCC Offset", "3"), ("cpu-fan", "1")], None),
        ([("Processor", "broken")], None),
        ([], None),
    ],
)
def test_cooling_is_what_slows_a_processor(tmp_path: Path, devices: list, cooled: object) -> None:
    for number, (kind, state) in enumerate(devices):
        put(tmp_path / f"class/thermal/cooling_device{number}/type", f"{kind}\n")
        put(tmp_path / f"class/thermal/cooling_device{number}/cur_state", f"{state}\n")
    assert read(tmp_path).cooled is cooled


@pytest.mark.parametrize(
    ("status", "names", "setting"),
    [
        ("pmode:0001\n", NAMES, "5W"),
        ("pmode:0000 fmode:quiet\n", NAMES, "MAXN"),
        ("pmode:0007\n", NAMES, "7"),
        ("pmode:0002\n", None, "2"),
        ("broken", NAMES, None),
        (None, NAMES, None),
    ],
)
def test_the_power_setting_has_its_name_or_number(tmp_path: Path, status: str, names: str, setting: str) -> None:
    for name, text in (("status", status), ("names", names)):
        if text is not None:
            put(tmp_path / name, text)
    assert read(tmp_path).power_setting == setting


def test_a_system_that_tells_nothing_is_unknown(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == DeviceState(Conditions(), {}, None, None)


def test_a_zone_s_limit_is_its_lowest_passive_or_hot_trip_point(tmp_path: Path) -> None:
    zones = {
        "CPU-therm": [("active", "51000"), ("passive", "97000"), ("critical", "102500"), ("hot", "99000")],
        "x86_pkg_temp": [("passive", "0"), ("passive", "-274000")],
        "PMIC-Die": [("passive", "90000")],
        "fan-only": [("active", "60000")],
        "broken": [("hot", "hot")],
    }
    for number, (zone, trips) in enumerate(zones.items()):
        put(tmp_path / f"class/thermal/thermal_zone{number}/type", zone)
        for trip, (kind, temperature) in enumerate(trips):
            put(tmp_path / f"class/thermal/thermal_zone{number}/trip_point_{trip}_type", kind)
            put(tmp_path / f"class/thermal/thermal_zone{number}/trip_point_{trip}_temp", temperature)
    assert read_limits(tmp_path) == {"CPU-therm": 97.0}
    assert read_limits(tmp_path / "none") == {}
