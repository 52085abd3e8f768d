"""Watts of a Jetson's rails from its INA3221 sensors, as either kernel driver shows them in sysfs.

JetPack 4's driver has IIO files (`rail_name_K`, `in_powerK_input`), JetPack 5's and later hwmon files (`inK_label`,
`inK_input`, `currK_input`). Channels are found by label: chips, channels and hwmon numbers differ between boards.
"""

import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from wenet_runtime.conditions import SYSFS, read_text
from wenet_runtime.errors import MeterError
from wenet_runtime.meters import sysfs as sysfs_files
from wenet_runtime.meters.rails import INPUTS, UNCONNECTED, rotated, total_rails
from wenet_runtime.meters.sampler import PolledMeter

INTERVAL_S = 0.02
# Labels are held against each other by a look at all rails now and then: those that are not needed for the total
# cost as much to read as those that are.
LOOK_EVERY = 10
HOPELESS_LOOKS = 5  # in a row, so that for a second the input drew less than what it feeds

_CHIPS = ("bus/i2c/devices/*/name", "bus/i2c/drivers/ina3221*/*/name")
_IIO_FILES = "/sys/bus/i2c/drivers/ina3221x/*/iio:device*/{rail_name_*,in_power*_input}"
_HWMON_FILES = "/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/{in*_label,in*_input,curr*_input}"


class Rail(NamedTuple):
    """One channel of a sensor: a file of its power, mW, or files of its voltage and current, mV and mA."""

    power: Optional[Path]
    millivolts: Path
    milliamperes: Path

    def read_mw(self) -> float:
        """Its power now. Raises `OSError`, `ValueError`."""
        if self.power is not None:
            return sysfs_files.read_number(self.power)
        return sysfs_files.read_number(self.millivolts) * sysfs_files.read_number(self.milliamperes) / 1e3


def find_rails(sysfs: Path = SYSFS) -> Dict[str, Rail]:
    """The connected channels of all sensors, by label.

    Raises:
        MeterError: there is no sensor, it names no rail, or its names may not be read; says what to do.
    """
    chips = _chips(sysfs)
    if not chips:
        raise MeterError(
            f"no INA3221 power sensor under {sysfs}/bus/i2c: this is no Jetson, or one without a sensor (Nano 2GB)"
        )
    found: Dict[str, Rail] = {}
    for chip in chips:
        for name, rail in _channels(chip):
            if name != UNCONNECTED:
                found.setdefault(name, rail)
    if not found:
        raise MeterError(f"the INA3221 power sensor {chips[0].name} under {sysfs} names no rail")
    return found


def _chips(sysfs: Path) -> List[Path]:
    """The sensors' folders, of which each may be seen from its bus and from its driver."""
    names = (path for pattern in _CHIPS for path in sorted(sysfs.glob(pattern)))
    return [path.parent for path in names if "ina3221" in (read_text(path) or "")]


def _channels(chip: Path) -> Iterator[Tuple[str, Rail]]:
    for path in sorted(chip.glob("iio:device*/rail_name_[0-9]")):
        device, number = path.parent, path.name[-1]
        files = [device / f"in_{what}{number}_input" for what in ("power", "voltage", "current")]
        yield _label(path), Rail(*files)
    # in4 to in6 are voltages over the shunts, in µV, and in7 is their sum.
    for path in sorted(chip.glob("hwmon/hwmon*/in[123]_label")):
        device, number = path.parent, path.name[2]
        yield _label(path), Rail(None, device / f"in{number}_input", device / f"curr{number}_input")


def _label(path: Path) -> str:
    """The name of a channel. One that does not answer is not connected."""
    try:
        return sysfs_files.read_file(path).decode("ascii", "replace").strip() or UNCONNECTED
    except PermissionError:
        raise _not_permitted(path) from None
    except OSError:
        return UNCONNECTED


def readable(rail: Rail) -> Rail:
    """The rail by those of its files that there are and that may be read. Raises `MeterError` if none may."""
    for choice in (rail, rail._replace(power=None)):
        try:
            choice.read_mw()
        except (PermissionError, FileNotFoundError):
            continue
        except (OSError, ValueError):
            pass  # a sensor that does not answer now may later
        return choice
    raise _not_permitted(rail.power or rail.millivolts)


def _not_permitted(path: Path) -> MeterError:
    files = _IIO_FILES if path.parent.name.startswith("iio") else _HWMON_FILES
    return MeterError(
        f"permission: {path} may not be read by this user: run as root (in a container as uid 0), "
        f"or until the next boot `sudo chmod o+r {files}`"
    )


class Ina3221Meter(PolledMeter):
    """Power of the whole board, read 50 times a second.

    Args:
        rail: the rail or rails ("A+B") that are the whole board, if not what its kind says; labels are then believed.
        sysfs: where it is mounted.
        interval_s: time between readings.
        clock: the monotonic clock.

    Raises:
        MeterError: as `find_rails` and `readable`; or which rails are the whole board is not known.
    """

    def __init__(
        self,
        rail: Optional[str] = None,
        *,
        sysfs: Path = SYSFS,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rails = find_rails(sysfs)
        total = total_rails(rails, rail)
        if total is None:
            there = ", ".join(rails)
            if rail is not None:
                raise MeterError(f"--power-rail {rail}: there is no such rail; found are {there}")
            raise MeterError(
                f"whether the rails {there} are the whole board is not known: name one, or some joined by +, "
                "with --power-rail"
            )
        name = "+".join(total)
        rails.update({one: readable(rails[one]) for one in total})
        board = BoardReader(rails, total, doubted=rail is None and total[0] in INPUTS)
        super().__init__(f"rail:{name}", name, board.watts, interval_s=interval_s, clock=clock)


class BoardReader:
    """Reads the rails that are the whole board, and holds the labels against each other.

    Args:
        rails: all that there are.
        total: which of them add up to the board.
        doubted: whether labels may be rotated.
    """

    def __init__(self, rails: Dict[str, Rail], total: Sequence[str], *, doubted: bool) -> None:
        self._total = [(name, rails[name]) for name in total]
        self._others = [(name, one) for name, one in rails.items() if name not in total] if doubted else []
        self._readings = 0
        self._suspicious = 0  # looks in a row

    def watts(self) -> Optional[float]:
        """The board's power; None while its labels are doubted.

        Raises:
            OSError, ValueError: a rail that is needed cannot be read.
            MeterError: the labels are rotated; says what to do.
        """
        read_mw = {name: rail.read_mw() for name, rail in self._total}
        if self._others and self._readings % LOOK_EVERY == 0:
            self._look(read_mw)
        self._readings += 1
        return None if self._suspicious else sum(read_mw.values()) / 1e3

    def _look(self, total_mw: Dict[str, float]) -> None:
        all_mw = {name: round(mw) for name, mw in total_mw.items()}
        for name, rail in self._others:
            try:
                all_mw[name] = round(rail.read_mw())
            except (OSError, ValueError):
                continue  # the total does not need it
        why = rotated(all_mw)
        self._suspicious = 0 if why is None else self._suspicious + 1
        if why is not None and self._suspicious >= HOPELESS_LOOKS:
            raise MeterError(why)
