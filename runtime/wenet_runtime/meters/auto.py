"""Chooses a meter: by its name, or the first that measures here what the engine uses."""

from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional

from wenet_runtime.conditions import SYSFS
from wenet_runtime.errors import MeterError
from wenet_runtime.meters import METERS
from wenet_runtime.meters.base import Meter
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.registry import make

AUTO, NONE = "auto", "none"
ORDER = ("ina3221", "tegrastats", "nvml", "rapl")
WITH_RAILS = ("ina3221", "tegrastats", "jtop")
IN_SYSFS = ("ina3221", "rapl")
PERMISSION = "permission:"


class Chosen(NamedTuple):
    """A meter that runs.

    Attributes:
        name: of the table, or as it was given.
        meter: it.
        passed_over: name → why not, of those that were tried or left out before it.
    """

    name: str
    meter: Meter
    passed_over: Mapping[str, str] = {}


def choose_meter(
    name: str, *, on_gpu: bool = False, rail: Optional[str] = None, sysfs: Optional[Path] = None
) -> Chosen:
    """Start a meter.

    Args:
        name: of the table, `auto`, or "package.module:Class" of the user's own.
        on_gpu: whether the engine computes on a GPU.
        rail: the rail or rails that are the whole board, for meters that have rails.
        sysfs: where it is mounted, if elsewhere.

    Raises:
        MeterError: a meter that was named cannot deliver, or has no rails and was given one. `auto` raises none.
        SettingsError: there is no meter of that name.
    """
    sysfs = SYSFS if sysfs is None else sysfs
    if name != AUTO:
        if rail is not None and name not in WITH_RAILS:
            raise MeterError(
                f"--power-rail {rail} goes with a meter that has rails ({', '.join(WITH_RAILS)}), and --meter is {name}"
            )
        return Chosen(name, _start(name, rail, sysfs))
    passed_over: Dict[str, str] = {}
    for one in ORDER:
        unfit = _unfit(one, on_gpu, rail)
        if unfit is None:
            try:
                return Chosen(one, _start(one, rail, sysfs), passed_over)
            except MeterError as error:
                unfit = str(error)
        passed_over[one] = unfit
    return Chosen(NONE, NoMeter(_summary(passed_over)), passed_over)


def _unfit(name: str, on_gpu: bool, rail: Optional[str]) -> Optional[str]:
    """Why a meter is not even tried: what it measures is not what is asked for."""
    if rail is not None and name not in WITH_RAILS:
        return "it has no rails, and --power-rail names one"
    if name == "nvml" and not on_gpu:
        return "it does not see the processor, on which the engine computes"
    if name == "rapl" and on_gpu:
        return "it does not see the GPU, on which the engine computes"
    return None


def _start(name: str, rail: Optional[str], sysfs: Path) -> Meter:
    how: Dict[str, Any] = {}
    if name in WITH_RAILS:
        how["rail"] = rail
    if name in IN_SYSFS:
        how["sysfs"] = sysfs
    meter: Meter = make(METERS, name, kind="meter", error=MeterError, interface=Meter, also=(AUTO,), **how)
    return meter


def _summary(passed_over: Mapping[str, str]) -> str:
    """Every reason, those first that somebody can do something about."""
    first = sorted(passed_over, key=lambda name: PERMISSION not in passed_over[name])
    return "no meter delivers here. " + ". ".join(f"{name}: {passed_over[name]}" for name in first)
