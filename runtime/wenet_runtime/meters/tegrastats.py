"""What a line of NVIDIA's `tegrastats` says, whichever board and release printed it. Text in, values out.

A field is known by its form, never by its place: order, spaces and fields differ between boards.
"""

import re
from dataclasses import dataclass
from typing import Dict, List, NamedTuple, Optional, Tuple

from wenet_runtime.meters.rails import UNCONNECTED, whole_board

SENSOR_OFF_C = -200.0  # a temperature from here down, -256 in practice, is a sensor without power
HOTTEST_C = 300.0

# Numbers of at most seven digits: more than any board has of anything, and what is longer is not a reading. No
# search can run far from more than one place of the same text, so time grows with length and no faster.
_N = r"\d{1,7}"
_C = rf"-?{_N}(?:\.{_N})?"
_FIELDS: Tuple[Tuple[str, str], ...] = (  # at one place the first that fits
    ("date", r"\d\d-\d\d-\d{4}\s+\d\d:\d\d:\d\d(?!\S)"),
    ("ram", rf"RAM\s+(?P<used>{_N})/(?P<total>{_N})MB\s*\(lfb\s+{_N}x{_N}[kM]B\)"),
    ("swap", rf"SWAP\s+{_N}/{_N}MB\s*\(cached\s+{_N}MB\)"),
    ("iram", rf"IRAM\s+{_N}/{_N}kB\s*\(lfb\s+{_N}kB\)"),
    ("cpu", rf"(?:CPU|cpu)\s+\[(?P<cores>[^][]*)\](?:@(?P<shared>{_N}))?"),
    ("emc", rf"EMC(?:_FREQ)?\s+{_N}%(?:@{_N})?(?!\S)"),
    ("mts", rf"MTS\s+fg\s+{_N}%\s+bg\s+{_N}%"),
    ("gpu", rf"GR3D(?:_FREQ)?\s+(?:(?P<load>{_N})%)?(?:@(?:\[(?P<clocks>[\d,]+)\]|(?P<clock>{_N})))?(?!\S)"),
    ("temperature", rf"(?P<sensor>[A-Za-z][\w-]*)@(?P<degrees>{_C})C(?:/{_C}C)?(?!\S)"),
    ("rail", rf"(?P<name>[A-Za-z]\w*)\s+(?P<mw>{_N})(?:mW)?/{_N}(?:mW)?(?:/{_N}(?:mW)?)?(?!\S)"),
    ("engine", rf"[A-Z][A-Z0-9]*(?:_FREQ)?\s+(?:off|(?:{_N}%)?@?{_N})(?!\S)"),
    ("unknown", r"\S+"),
)
_LINE = re.compile(r"(?<!\S)(?:" + "|".join(f"(?P<{name}>{form})" for name, form in _FIELDS) + ")", re.ASCII)
_CORES = re.compile(rf"\s*(?:({_N})%(?:@({_N}))?)?\s*([^,]*),", re.ASCII)


class CpuCore(NamedTuple):
    """One core that is on: its load, and its clock where that is told."""

    percent: int
    mhz: Optional[int]


class Ram(NamedTuple):
    """Memory of the board, which CPU and GPU share."""

    used_mb: int
    total_mb: int


@dataclass(frozen=True)
class Reading:
    """What one line says; what it does not say is None or empty.

    Attributes:
        rails_mw: momentary power by rail, mW, without unconnected ones. The mean that stands beside it is of the
            whole life of the process that printed the line, and so is not kept.
        total_mw: the whole board, by the rules of `rails.whole_board`; None when the line cannot say.
        temperatures_c: by sensor, without those that are off.
        gpu_percent: load of the GPU.
        gpu_mhz: its clock; of the fastest part where it has several.
        cpu: the cores in order; None for one that is off.
        ram_mb: memory of the board.
        unknown: words that no known field begins with, in order.
    """

    rails_mw: Dict[str, int]
    total_mw: Optional[int]
    temperatures_c: Dict[str, float]
    gpu_percent: Optional[int]
    gpu_mhz: Optional[int]
    cpu: Tuple[Optional[CpuCore], ...]
    ram_mb: Optional[Ram]
    unknown: Tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether this was a line of tegrastats at all, whole or in part."""
        return bool(self.cpu or self.ram_mb or self.rails_mw)


def parse_line(line: str) -> Reading:
    """What the line says. Never raises, whatever the text; what it does not know it skips.

    Args:
        line: one whole line. Of a line that was cut the last number may be wrong: leave that to who reads them.
    """
    rails_mw: Dict[str, int] = {}
    temperatures_c: Dict[str, float] = {}
    load = clock = None
    cpu: Tuple[Optional[CpuCore], ...] = ()
    ram = None
    unknown: List[str] = []
    for found in _LINE.finditer(line):
        kind = found.lastgroup
        if kind == "temperature":
            sensor, degrees = found.group("sensor", "degrees")
            if SENSOR_OFF_C < float(degrees) < HOTTEST_C:
                temperatures_c[sensor] = float(degrees)
        elif kind == "rail":
            name, mw = found.group("name", "mw")
            rails_mw[name] = int(mw)
        elif kind == "cpu":
            cpu = _cores(found["cores"], found["shared"])
        elif kind == "gpu":
            load, clock = _percent(found["load"]), _fastest(found["clocks"] or found["clock"] or "")
        elif kind == "ram":
            ram = Ram(int(found["used"]), int(found["total"]))
        elif kind == "unknown":
            unknown.append(found["unknown"])
    rails_mw.pop(UNCONNECTED, None)
    total = whole_board(rails_mw)
    total_mw = None if total is None else total.mw
    return Reading(rails_mw, total_mw, temperatures_c, load, clock, cpu, ram, tuple(unknown))


def _percent(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and int(text) <= 100 else None


def _fastest(clocks: str) -> Optional[int]:
    return max((int(one) for one in clocks.split(",") if 0 < len(one) <= 7), default=None)


def _cores(listed: str, shared: Optional[str]) -> Tuple[Optional[CpuCore], ...]:
    """An entry that is not a load is a core that is off. The oldest boards tell one clock for all."""
    cores: List[Optional[CpuCore]] = []
    for percent, mhz, rest in _CORES.findall(listed + ","):
        own = mhz or shared
        on = percent and not rest and int(percent) <= 100
        cores.append(CpuCore(int(percent), int(own) if own else None) if on else None)
    return tuple(cores)
