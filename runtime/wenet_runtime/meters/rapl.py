"""Energy counters of Intel and AMD processors, as Linux shows them under powercap: packages, and memory where told.

They see neither disks nor fans nor a graphics card: what they count is not the whole machine.
"""

import re
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional

from wenet_runtime.conditions import SYSFS, read_integer, read_text
from wenet_runtime.errors import MeterError
from wenet_runtime.meters.base import MeterState
from wenet_runtime.meters.sampler import CounterReset, PolledMeter
from wenet_runtime.meters.sysfs import read_number
from wenet_runtime.meters.trace import PowerTrace

INTERVAL_S = 0.05
# More in one step than any machine takes between two readings: the counter was set back, and did not run over.
IMPOSSIBLE_J = 10_000.0
_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")


class Zone(NamedTuple):
    """One counter: its name, its file of µJ, and where it begins again."""

    name: str
    counter: Path
    range_uj: Optional[int]


def find_zones(sysfs: Path = SYSFS) -> List[Zone]:
    """All packages and their memory. Raises `MeterError` if there are none, or their counters may not be read."""
    found: List[Zone] = []
    for path in sorted((sysfs / "class/powercap").glob("intel-rapl:*")):
        kind = _ZONE.fullmatch(path.name)
        name = read_text(path / "name") or ""
        if kind is None or not name.startswith("dram" if kind.group(1) else "package"):
            continue
        # Of several packages only the number tells which memory is whose.
        told = f"{name}-{path.name.split(':')[1]}" if kind.group(1) else name
        found.append(Zone(told, path / "energy_uj", read_integer(path / "max_energy_range_uj")))
    if not any(one.name.startswith("package") for one in found):
        raise MeterError(f"no energy counter of a processor under {sysfs}/class/powercap")
    for one in found:
        try:
            read_number(one.counter)
        except PermissionError:
            raise MeterError(
                f"permission: {one.counter} may not be read by this user: run as root, or until the next boot "
                "`sudo chmod o+r /sys/class/powercap/intel-rapl:*/energy_uj`"
            ) from None
        except (OSError, ValueError) as error:
            raise MeterError(f"the counter {one.counter} cannot be read ({error})") from None
    return found


class Counters:
    """Adds up what several counters counted since they were last read, over their ends."""

    def __init__(self, zones: List[Zone]) -> None:
        self._zones = zones
        self._last_uj: Dict[Path, int] = {}

    def joules(self) -> float:
        """Since the reading before, J; 0 at the first.

        Raises:
            OSError, ValueError: a counter cannot be read; what it counted is then part of the next reading.
            CounterReset: it was set back; what it counted is lost.
        """
        now_uj = {one.counter: read_number(one.counter) for one in self._zones}
        last_uj, joules = self._last_uj or now_uj, 0.0
        self._last_uj = now_uj
        for one in self._zones:
            step_uj = now_uj[one.counter] - last_uj[one.counter]
            if step_uj < 0:
                step_uj += one.range_uj or 0
            if not 0 <= step_uj <= IMPOSSIBLE_J * 1e6:
                raise CounterReset(
                    f"the counter {one.name} went from {last_uj[one.counter]} to {now_uj[one.counter]} µJ"
                )
            joules += step_uj / 1e6
        return joules


class RaplMeter(PolledMeter):
    """Energy of the processors and their memory, read 20 times a second.

    Args:
        sysfs: where it is mounted.
        interval_s: time between readings.
        clock: the monotonic clock.

    Raises:
        MeterError: as `find_zones`.
    """

    def __init__(
        self,
        *,
        sysfs: Path = SYSFS,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        zones = find_zones(sysfs)
        super().__init__(
            "rapl",
            "+".join(one.name for one in zones),
            Counters(zones).joules,
            interval_s=interval_s,
            record=PowerTrace.add_energy,
            clock=clock,
        )

    def _told(self, status: str, detail: str) -> MeterState:
        return super()._told(status, detail or "processors and memory only, not the whole machine")
