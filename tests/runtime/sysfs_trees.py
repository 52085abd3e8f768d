"""Composed trees of /sys, as boards show their sensors: the names and places are theirs, the numbers are invented.

A tree's files may be changed while it is read. What a test wants to see refused it must patch: for root, under whom
tests may run, no file is unreadable.
"""

from pathlib import Path
from typing import Mapping, NamedTuple, Sequence, Tuple


class Channel(NamedTuple):
    """One channel of a sensor."""

    label: str
    millivolts: int = 5000
    milliamperes: int = 200


def write(path: Path, value: object) -> Path:
    """A file with a line, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")
    return path


def add_chip(root: Path, driver: str, address: str, name: str = "ina3221") -> Path:
    """A device on an I2C bus, seen from its bus and from its driver as the kernel shows it: by links."""
    device = root / "devices/platform/i2c" / address
    write(device / "name", name)
    for seen in (root / "bus/i2c/devices" / address, root / "bus/i2c/drivers" / driver / address):
        seen.parent.mkdir(parents=True, exist_ok=True)
        seen.symlink_to(device)
    return device


def add_iio(root: Path, address: str, channels: Sequence[Channel], number: int = 0) -> Path:
    """A sensor of JetPack 4's driver."""
    device = add_chip(root, "ina3221x", address, "ina3221x") / f"iio:device{number}"
    for at, one in enumerate(channels):
        write(device / f"rail_name_{at}", one.label)
        write(device / f"in_voltage{at}_input", one.millivolts)
        write(device / f"in_current{at}_input", one.milliamperes)
        write(device / f"in_power{at}_input", one.millivolts * one.milliamperes // 1000)
        write(device / f"warn_current_limit_{at}", 32760)
        write(device / f"crit_current_limit_{at}", 32760)
    return device


def add_hwmon(root: Path, address: str, channels: Sequence[Channel], number: int = 3) -> Path:
    """A sensor of JetPack 5's driver and later ones."""
    device = add_chip(root, "ina3221", address) / "hwmon" / f"hwmon{number}"
    write(device / "name", "ina3221")
    for at, one in enumerate(channels, 1):
        write(device / f"in{at}_label", one.label)
        write(device / f"in{at}_input", one.millivolts)
        write(device / f"curr{at}_input", one.milliamperes)
        write(device / f"curr{at}_max", 32760)
        write(device / f"in{at + 3}_label", f"shunt {at}")  # µV: no rail
        write(device / f"in{at + 3}_input", one.milliamperes * 5)
    write(device / "in7_label", "sum of shunt voltages")
    write(device / "in7_input", 15)
    return device


def add_other_chips(root: Path) -> None:
    """What else lies on a board's buses."""
    add_chip(root, "rtc-max77620", "4-003c", "max77620")
    (root / "bus/i2c/devices/i2c-0").mkdir(parents=True, exist_ok=True)


def nano(root: Path, *, milliamperes: int = 400) -> Path:
    """A Nano 4GB with JetPack 4; returns the folder of its sensor."""
    add_other_chips(root)
    rails = Channel("POM_5V_IN", 5000, milliamperes), Channel("POM_5V_GPU", 5000, 16), Channel("POM_5V_CPU", 5000, 80)
    return add_iio(root, "6-0040", rails)


def tx2(root: Path) -> Tuple[Path, Path]:
    """A TX2: two chips, of which the second in order has the input."""
    first = Channel("VDD_SYS_GPU", 19000, 8), Channel("VDD_SYS_SOC", 19000, 36), Channel("VDD_4V0_WIFI", 4000, 0)
    second = Channel("VDD_IN", 19000, 160), Channel("VDD_SYS_CPU", 19000, 8), Channel("VDD_SYS_DDR", 4800, 184)
    return add_iio(root, "0-0040", first, 0), add_iio(root, "0-0041", second, 1)


XAVIER_NX = (Channel("VDD_IN", 5000, 816), Channel("VDD_CPU_GPU_CV", 5000, 144), Channel("VDD_SOC", 5000, 264))


def xavier_nx(root: Path, *, jetpack: int) -> Path:
    """A Xavier NX with JetPack 4 or 5."""
    return (add_iio if jetpack == 4 else add_hwmon)(root, "7-0040", XAVIER_NX)


def orin_nano(root: Path, *, number: int = 3) -> Path:
    """An Orin Nano or NX; hwmon's number changes between boots."""
    rails = Channel("VDD_IN", 5080, 952), Channel("VDD_CPU_GPU_CV", 5080, 104), Channel("VDD_SOC", 5080, 288)
    return add_hwmon(root, "1-0040", rails, number)


def agx_xavier(root: Path) -> Tuple[Path, Path]:
    """An AGX Xavier, whose input no sensor sees."""
    first = Channel("GPU", 19000, 8), Channel("CPU", 19000, 48), Channel("SOC", 19000, 72)
    second = Channel("CV", 19000, 0), Channel("VDDRQ", 19000, 16), Channel("SYS5V", 5000, 400)
    return add_iio(root, "1-0040", first, 0), add_iio(root, "1-0041", second, 1)


def agx_orin(root: Path) -> Tuple[Path, Path]:
    """An AGX Orin: two chips, two channels that are not connected, and one rail that another feeds."""
    first = Channel("VDD_GPU_SOC", 843, 6170), Channel("VDD_CPU_CV", 780, 3437), Channel("VIN_SYS_5V0", 4968, 953)
    second = Channel("NC", 0, 0), Channel("VDDQ_VDD2_1V8AO", 1100, 700), Channel("NC", 0, 0)
    return add_hwmon(root, "1-0040", first, 3), add_hwmon(root, "1-0041", second, 4)


def rapl(root: Path, zones: Mapping[str, Tuple[str, int]], *, range_uj: int = 262_143_328_850) -> Path:
    """Processors' energy counters: zone, e.g. `intel-rapl:0`, → its name and µJ; returns their folder."""
    folder = root / "class/powercap"
    for zone, (name, uj) in zones.items():
        write(folder / zone / "name", name)
        write(folder / zone / "energy_uj", uj)
        write(folder / zone / "max_energy_range_uj", range_uj)
    return folder
