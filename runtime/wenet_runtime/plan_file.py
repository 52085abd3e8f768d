"""A plan's figures in the cache: measured once per host and engine, shared by all bundles."""

import json
import math
import re
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wenet_runtime.device import Device
from wenet_runtime.errors import EngineError
from wenet_runtime.files import make_private, write_atomic
from wenet_runtime.plan import Figures

VERSION = 1
MAX_BYTES = 16 << 20
_SIGNATURE = re.compile(r"[0-9a-f]{16}")
_GROUPS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4})*")


def plan_path(cache: Path, device: Device) -> Path:
    """Where a device's figures lie below the cache's root."""
    return cache / "plans" / f"{device.fingerprint}.json"


def read_figures(path: Path, device: Device) -> Figures:
    """The figures measured on this device earlier. Those of another, or damaged ones, are ignored with a warning."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        members = json.loads(path.read_text())
        return _figures(members, device)
    except FileNotFoundError:
        return Figures()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        warnings.warn(f"the lowering plan {path.name} cannot be used ({error}): measuring again", stacklevel=2)
        return Figures()


def write_figures(path: Path, device: Device, figures: Figures) -> None:
    """Keep figures for later starts. Raises `EngineError` when the cache cannot be written."""
    members = {"version": VERSION, "device": asdict(device), "peak": figures.peak, "times_ms": figures.times_ms}
    try:
        make_private(path.parent)
        write_atomic(path, json.dumps(members, indent=1, sort_keys=True).encode(), mode=0o600)
    except OSError as error:
        raise EngineError(
            f"cannot write the lowering plan {path} ({error.strerror}): choose another --cache-dir"
        ) from None


def _figures(members: Any, device: Device) -> Figures:
    if members["version"] != VERSION or members["device"] != asdict(device):
        raise ValueError("it was measured on another device, engine or version")
    times = members["times_ms"]
    for signature, known in times.items():
        if not _SIGNATURE.fullmatch(signature):
            raise ValueError(f"'{signature[:20]}' names no segment")
        for groups, taken in known.items():
            if not _GROUPS.fullmatch(groups) or not _possible(taken):
                raise ValueError(f"segment {signature} holds '{groups[:20]}': {taken!r}")
    peak = members["peak"]
    if peak is not None and not _possible(peak):
        raise ValueError(f"its peak is {peak!r}")
    return Figures(times, peak)


def _possible(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
