"""`profile.json` in a device's cache: what a bundle's modes cost there, and which of them are offered."""

import json
import math
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Collection, Dict, Mapping, Optional

from wenet_runtime.device import Device
from wenet_runtime.files import write_atomic
from wenet_runtime.profile import Profile
from wenet_runtime.selection import Left, Selected

FILE = "profile.json"
MAX_BYTES = 16 << 20
MAX_THREADS = 256


@dataclass(frozen=True)
class DeviceProfile:
    """What was measured of a bundle's modes on one device.

    Attributes:
        modes: by id; empty when they were built again since, and only the choice is still known.
        meter: the source of energy it was measured with.
        measured_at: ISO 8601.
        conditions: clocks and temperatures when measuring began and ended, as far as the system tells.
        selected: the modes that are offered; all if None.
    """

    modes: Mapping[str, Profile]
    meter: str
    measured_at: str
    conditions: Mapping[str, Any] = field(default_factory=dict)
    selected: Optional[Selected] = None

    def of(self, meter: str, wanted: Collection[str]) -> Optional[Dict[str, Profile]]:
        """The profiles if they are of this meter and of all modes that are wanted; else None."""
        if not self.modes or self.meter != meter:
            return None  # another meter's energy would be shown as this one's
        if not set(wanted) <= set(self.modes):
            _warn_of_another()
            return None
        return dict(self.modes)

    def joined(self, before: "Optional[DeviceProfile]", now: "Optional[DeviceProfile]") -> "DeviceProfile":
        """This, with what another process has measured and chosen in the meantime.

        Args:
            before, now: what lay in the cache before this was measured, and after.
        """
        if now is None or now == before:
            return self
        others = now.modes if now.meter == self.meter else {}
        return replace(self, modes={**others, **self.modes}, selected=now.selected)


def read_profile(
    folder: Path, *, bundle_sha256: str, device: Device, modes: Collection[str]
) -> Optional[DeviceProfile]:
    """The profile that lies in a cache's folder; None where there is none, with a warning where it cannot be used.

    Args:
        folder: where it lies.
        bundle_sha256: the bundle that it must be of.
        device: the device that it must be of.
        modes: ids of all modes of the bundle.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        members = json.loads(path.read_text())
        profiles = {mode_id: _profile(figures) for mode_id, figures in members["modes"].items()}
        own = (members["bundle_sha256"], members["device"]) == (bundle_sha256, asdict(device))
        conditions = members.get("conditions", {})
        selected = _selected(members.get("selected"), modes) if own else None
        found = DeviceProfile(profiles, str(members["meter"]), str(members["measured_at"]), dict(conditions), selected)
        fits = own and set(profiles) <= set(modes) and all(map(_plausible, profiles.values()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        warnings.warn(f"the cached profile is unreadable ({error}): measuring again", stacklevel=2)
        return None
    if not fits:
        _warn_of_another()
        return None
    return found


def write_profile(folder: Path, found: DeviceProfile, *, bundle_sha256: str, device: Device) -> None:
    """Write the file, at once or not at all."""
    members: Dict[str, Any] = {
        "bundle_sha256": bundle_sha256,
        "device": asdict(device),
        "measured_at": found.measured_at,
        "meter": found.meter,
        "conditions": dict(found.conditions),
        "modes": {mode_id: asdict(profile) for mode_id, profile in found.modes.items()},
    }
    if found.selected is not None:
        members["selected"] = selected_members(found.selected)
    write_atomic(folder / FILE, json.dumps(members, indent=1).encode(), mode=0o600)


def selected_members(selected: Selected) -> Dict[str, Any]:
    """A choice of modes as it stands in the file and is printed."""
    left = {one.id: one.why for one in selected.left}
    return {"wanted": selected.wanted, "modes": list(selected.modes), "left": left}


def _warn_of_another() -> None:
    warnings.warn("the cached profile does not fit this bundle and device: measuring again", stacklevel=3)


def _profile(figures: Mapping[str, Any]) -> Profile:
    profile = Profile(**figures)
    if profile.batch_ms is None:
        return profile
    return replace(profile, batch_ms={int(rows): took_ms for rows, took_ms in profile.batch_ms.items()})


def _selected(members: Any, known: Collection[str]) -> Optional[Selected]:
    if members is None:
        return None
    left = tuple(Left(mode_id, str(why)) for mode_id, why in members["left"].items())
    found = Selected(int(members["wanted"]), tuple(members["modes"]), left)
    ids = [*found.modes, *(one.id for one in left)]
    if not found.modes or len(set(ids)) != len(ids) or not set(ids) <= set(known):
        raise ValueError(f"it offers {list(found.modes)} and leaves {[one.id for one in left]}")
    return found


def _plausible(profile: Profile) -> bool:
    """Whether a profile holds figures that could have been measured."""
    times = [profile.p50_ms, profile.p95_ms, profile.p99_ms]
    batches = profile.batch_ms or {}
    if not all(map(_positive, [*times, *batches.values()])) or any(rows < 1 for rows in batches):
        return False
    energy = profile.energy_mj
    known = isinstance(energy, (int, float)) and math.isfinite(energy) and energy >= 0
    possible = profile.threads is None or (type(profile.threads) is int and 1 <= profile.threads <= MAX_THREADS)
    return times == sorted(times) and (energy is None or known) and possible


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0
