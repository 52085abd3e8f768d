"""Checks of the board itself: what it is, its power setting, clocks and rails."""

import platform
from pathlib import Path
from typing import Dict, List, Optional

from wenet_runtime.board import MODEL_VARIABLE, Board
from wenet_runtime.conditions import read_integer
from wenet_runtime.device_state import DeviceState
from wenet_runtime.errors import MeterError
from wenet_runtime.meters.ina3221 import find_rails, readable
from wenet_runtime.service.check import OK, SKIPPED, WARN, Check, problem

NO_JETSON = "this is no Jetson"


def check_board(board: Board) -> List[Check]:
    """Model, release of Linux for Tegra, JetPack and nvpmodel's power setting."""
    if not board.tegra:
        named = f"{board.model}, {platform.machine()}" if board.model else platform.machine()
        return [
            Check("board", OK, f"no Jetson ({named})", data={"model": board.model, "tegra": False}),
            *(Check(name, SKIPPED, NO_JETSON) for name in ("L4T", "JetPack", "power setting")),
        ]
    return [
        _told(
            "board",
            board.model,
            f"tell it: -e {MODEL_VARIABLE}=\"$(tr -d '\\0' < /proc/device-tree/model)\" (a container cannot see it)",
        ),
        _told("L4T", board.l4t, "in a container mount the file: -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro"),
        _told("JetPack", board.jetpack, "it follows from the L4T release, which is unknown or newer than this runtime"),
        _told(
            "power setting",
            board.power_setting,
            "ask nvpmodel itself (`sudo nvpmodel -q`); in a container mount /var/lib/nvpmodel and /etc/nvpmodel.conf",
        ),
    ]


def _told(name: str, value: Optional[str], remedy: str) -> Check:
    if value is None:
        return Check(name, WARN, "unknown", remedy, {"value": None})
    return Check(name, OK, value, data={"value": value})


def check_clocks(board: Board, state: DeviceState, sysfs: Path) -> Check:
    """Present and allowed clocks, heat, and whether a Tegra's GPU changes its clock with its load."""
    conditions = state.conditions
    processor = _of(conditions.clock_mhz, max(_allowed(state, "cpu"), default=None))
    gpu = None
    if board.gpu is not None:
        gpu = _of(conditions.clocks_mhz.get(board.gpu), state.allowed_mhz.get(board.gpu))
    degrees = None if conditions.temperature_c is None else f"{conditions.temperature_c:.0f} °C"
    told = [(what, value) for what, value in (("processor", processor), ("GPU", gpu), ("hottest", degrees)) if value]
    if not told:
        return Check("clocks", SKIPPED, "this system tells no clocks, as in most virtual machines")
    found = ", ".join(f"{what} {value}" for what, value in told)
    data = {
        "clocks_mhz": dict(conditions.clocks_mhz),
        "allowed_mhz": dict(state.allowed_mhz),
        "temperatures_c": dict(conditions.temperatures_c),
        "cooled": state.cooled,
    }
    if state.cooled:
        return Check("clocks", WARN, f"{found}; slowed because of heat", "cool the board, or lower its load", data)
    if board.tegra and board.gpu is not None and _moves(sysfs / "class/devfreq" / board.gpu):
        remedy = (
            "`sudo jetson_clocks` pins it; else requests after a rest are slow, and profiles hold for one clock only"
        )
        return Check("clocks", WARN, f"{found}; the GPU's clock follows its load", remedy, data)
    return Check("clocks", OK, found, data=data)


def _allowed(state: DeviceState, kind: str) -> List[float]:
    return [mhz for name, mhz in state.allowed_mhz.items() if name.startswith(kind)]


def _of(now_mhz: Optional[float], allowed_mhz: Optional[float]) -> Optional[str]:
    if now_mhz is None:
        return None
    return f"{now_mhz:.0f} MHz" if allowed_mhz is None else f"{now_mhz:.0f} of {allowed_mhz:.0f} MHz"


def _moves(folder: Path) -> bool:
    least, most = (read_integer(folder / name) for name in ("min_freq", "max_freq"))
    return least is not None and most is not None and least < most


def check_rails(sysfs: Path) -> Check:
    """Whether this user may read the board's power sensor."""
    try:
        found = {name: readable(rail) for name, rail in find_rails(sysfs).items()}
    except MeterError as error:
        status = WARN if str(error).startswith("permission") else SKIPPED
        return problem("rails", status, error)
    readings: Dict[str, Optional[int]] = {}
    for name, rail in found.items():
        try:
            readings[name] = round(rail.read_mw())
        except (OSError, ValueError):
            readings[name] = None  # a sensor that does not answer now may later
    text = ", ".join(f"{name} {'–' if value is None else value} mW" for name, value in readings.items())
    return Check("rails", OK, text, data={"rails_mw": readings})
