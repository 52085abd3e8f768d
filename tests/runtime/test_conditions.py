"""Clocks and temperatures are what sysfs says; what it does not say is unknown and never invented."""

from pathlib import Path

from wenet_runtime.conditions import Conditions, read_conditions


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_clocks_of_cores_and_devices_and_temperatures_are_read(tmp_path: Path) -> None:
    put(tmp_path / "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1479000\n")
    put(tmp_path / "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "102000\n")
    put(tmp_path / "class/devfreq/57000000.gpu/cur_freq", "921600000\n")
    put(tmp_path / "class/thermal/thermal_zone0/type", "CPU-therm\n")
    put(tmp_path / "class/thermal/thermal_zone0/temp", "41500\n")
    put(tmp_path / "class/thermal/thermal_zone1/type", "CPU-therm\n")
    put(tmp_path / "class/thermal/thermal_zone1/temp", "39000\n")
    found = read_conditions(tmp_path)
    assert found.clocks_mhz == {"cpu0": 1479.0, "cpu1": 102.0, "57000000.gpu": 921.6}
    assert found.temperatures_c == {"CPU-therm": 41.5, "CPU-therm 2": 39.0}
    assert (found.clock_mhz, found.temperature_c) == (1479.0, 41.5)


def test_sensors_that_are_off_fixed_or_damaged_are_left_out(tmp_path: Path) -> None:
    for number, (kind, value) in enumerate(
        [("PMIC-Die", "100000"), ("GPU-therm", "-256000"), ("x", "hot"), ("y", ""), ("z", "9999999")]
    ):
        put(tmp_path / f"class/thermal/thermal_zone{number}/type", kind)
        put(tmp_path / f"class/thermal/thermal_zone{number}/temp", value)
    (tmp_path / "class/thermal/thermal_zone9/temp").mkdir(parents=True)  # reading it is an error
    put(tmp_path / "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "<unknown>")
    assert read_conditions(tmp_path) == Conditions()


def test_a_system_that_tells_nothing_has_no_clock_and_no_temperature(tmp_path: Path) -> None:
    found = read_conditions(tmp_path / "none")
    assert found.clock_mhz is None
    assert found.temperature_c is None
