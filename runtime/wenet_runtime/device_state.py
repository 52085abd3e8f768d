"""What holds a device's speed down now, as Linux tells it: allowed clocks, cooling, nvpmodel's power setting."""

import re
from pathlib import Path
from typing import Dict, Iterator, Mapping, NamedTuple, Optional, Tuple

from wenet_runtime.conditions import FIXED, SYSFS, Conditions, read_conditions, read_integer, read_text

POWER_STATUS = Path("/var/lib/nvpmodel/status")
POWER_NAMES = Path("/etc/nvpmodel.conf")
# What slows a processor down, by a part of its name; the others are fans, screens and radios.
SLOWING = ("cpu", "gpu", "processor", "devfreq", "balanced", "throttle", "powerclamp")
LOWEST_LIMIT_C, HIGHEST_LIMIT_C = 40.0, 150.0  # a trip point beyond was never set


class DeviceState(NamedTuple):
    """One reading; nothing where the system does not tell.

    Attributes:
        conditions: present clocks and temperatures.
        allowed_mhz: the highest clock allowed now, by processor policy ("cpu0") or device ("57000000.gpu").
        cooled: whether the kernel slows something down because of heat; None when unknown.
        power_setting: nvpmodel's, by its name or, without names, its number.
    """

    conditions: Conditions
    allowed_mhz: Mapping[str, float] = {}
    cooled: Optional[bool] = None
    power_setting: Optional[str] = None


def read_state(
    sysfs: Path = SYSFS, *, power_status: Path = POWER_STATUS, power_names: Path = POWER_NAMES
) -> DeviceState:
    """The present state. What cannot be read is left out."""
    return DeviceState(
        read_conditions(sysfs), dict(_allowed(sysfs)), _cooled(sysfs), _power_setting(power_status, power_names)
    )


def read_limits(sysfs: Path = SYSFS) -> Dict[str, float]:
    """Where each thermal zone starts to slow the device, °C: the lowest of its passive and hot trip points."""
    found: Dict[str, float] = {}
    for path in sorted(sysfs.glob("class/thermal/thermal_zone*/trip_point_*_type")):
        if read_text(path) not in ("passive", "hot"):
            continue
        zone = read_text(path.parent / "type") or path.parent.name
        thousandths = read_integer(path.with_name(path.name.replace("_type", "_temp")))
        if thousandths is None or zone in FIXED or not LOWEST_LIMIT_C <= thousandths / 1e3 <= HIGHEST_LIMIT_C:
            continue
        found[zone] = min(thousandths / 1e3, found.get(zone, HIGHEST_LIMIT_C))
    return found


def _allowed(sysfs: Path) -> Iterator[Tuple[str, float]]:
    # A policy stands for all cores that share a clock, so there are few to read.
    for path in sysfs.glob("devices/system/cpu/cpufreq/policy[0-9]*/scaling_max_freq"):
        khz = read_integer(path)
        if khz is not None and khz > 0:
            yield path.parent.name.replace("policy", "cpu"), khz / 1e3
    for path in sysfs.glob("class/devfreq/*/max_freq"):
        hz = read_integer(path)
        if hz is not None and hz > 0:
            yield path.parent.name, hz / 1e6


def _cooled(sysfs: Path) -> Optional[bool]:
    known = False
    for path in sysfs.glob("class/thermal/cooling_device*/type"):
        name = (read_text(path) or "").lower()
        if "fan" in name or not any(part in name for part in SLOWING):
            continue
        state = read_integer(path.with_name("cur_state"))
        if state is not None and state > 0:
            return True
        known = known or state is not None
    return False if known else None


def _power_setting(status: Path, names: Path) -> Optional[str]:
    """Read from what nvpmodel leaves behind, e.g. "pmode:0001", because running it needs root."""
    number = re.search(r"pmode:(\d{1,6})", read_text(status) or "")
    if number is None:
        return None
    wanted = int(number.group(1))
    for one in re.finditer(r"^<\s*POWER_MODEL\s+ID=(\d{1,6})\s+NAME=(\S+)\s*>", read_text(names) or "", re.MULTILINE):
        if int(one.group(1)) == wanted:
            return one.group(2)
    return str(wanted)
