"""The state a device is measured in: clocks and temperatures, as Linux's sysfs tells them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, Mapping, Optional, Tuple

SYSFS = Path("/sys")
FIXED = ("PMIC-Die",)  # a Jetson's zone that always says 100 °C
COLDEST_C, HOTTEST_C = -60.0, 200.0  # a sensor that is off says something beyond


@dataclass(frozen=True)
class Conditions:
    """What the system tells; nothing where it does not, as in most virtual machines.

    Attributes:
        clocks_mhz: by processor core or device, e.g. "cpu0", "57000000.gpu".
        temperatures_c: by thermal zone, e.g. "CPU-therm".
    """

    clocks_mhz: Mapping[str, float] = field(default_factory=dict)
    temperatures_c: Mapping[str, float] = field(default_factory=dict)

    @property
    def clock_mhz(self) -> Optional[float]:
        """The quickest processor core's clock; None when unknown."""
        return max((mhz for name, mhz in self.clocks_mhz.items() if name.startswith("cpu")), default=None)

    @property
    def temperature_c(self) -> Optional[float]:
        """The hottest zone; None when unknown."""
        return max(self.temperatures_c.values(), default=None)


def read_conditions(sysfs: Path = SYSFS) -> Conditions:
    """The present state. What cannot be read is left out: a sensor that is off answers with an error."""
    return Conditions(dict(_clocks(sysfs)), dict(_temperatures(sysfs)))


def _clocks(sysfs: Path) -> Iterator[Tuple[str, float]]:
    for path in sorted(sysfs.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")):
        khz = read_integer(path)
        if khz is not None and khz > 0:
            yield path.parent.parent.name, khz / 1e3
    for path in sorted(sysfs.glob("class/devfreq/*/cur_freq")):
        hz = read_integer(path)
        if hz is not None and hz > 0:
            yield path.parent.name, hz / 1e6


def _temperatures(sysfs: Path) -> Iterator[Tuple[str, float]]:
    seen: Dict[str, int] = {}
    for path in sorted(sysfs.glob("class/thermal/thermal_zone*/temp")):
        thousandths, name = read_integer(path), read_text(path.parent / "type") or path.parent.name
        if thousandths is None or name in FIXED or not COLDEST_C < thousandths / 1e3 < HOTTEST_C:
            continue
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else f"{name} {seen[name]}"), thousandths / 1e3


def read_integer(path: Path) -> Optional[int]:
    """A whole number that a file of sysfs holds; None where it cannot be read or is none."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None


def read_text(path: Path) -> Optional[str]:
    """What a file of sysfs holds; None where it cannot be read: a sensor that is off answers with an error."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
