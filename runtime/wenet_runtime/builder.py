"""Modes → engines of this device, in the cache; and the profile measured here beside them.

`<cache>/<bundle sha256>/<device fingerprint>/` lies outside the bundle, is readable by its owner only,
and never travels. A damaged or foreign entry is ignored with a warning and built again.
"""

import hashlib
import json
import math
import os
import platform
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Mapping, Optional

from wenet_runtime import __version__
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.errors import EngineError
from wenet_runtime.files import write_atomic
from wenet_runtime.profile import Profile

if TYPE_CHECKING:
    from wenet_runtime.materialize import Supernet

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Device:
    """What an engine's figures depend on."""

    machine: str
    processor: str
    cores: int
    engine: str
    engine_version: str
    threads: int
    runtime_version: str = __version__

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def this_device(engine: str, engine_version: str, threads: int) -> Device:
    """Describe the machine this runs on."""
    return Device(platform.machine(), _processor(), os.cpu_count() or 1, engine, engine_version, threads)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model", "Hardware")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: the general name will do
    return platform.processor() or "unknown"


def _plausible(profile: Profile) -> bool:
    """Whether a profile read from a file holds figures that could have been measured."""
    times = (profile.p50_ms, profile.p95_ms, profile.p99_ms)
    energy = profile.energy_mj
    if not all(isinstance(one, (int, float)) and math.isfinite(one) and one > 0 for one in times):
        return False
    known = isinstance(energy, (int, float)) and math.isfinite(energy) and energy >= 0
    return list(times) == sorted(times) and (energy is None or known)


class DeviceCache:
    """What this device keeps of one bundle.

    Args:
        root: the cache's root, from `--cache-dir`.
        bundle: the bundle it belongs to.
        device: the device it belongs to.
    """

    def __init__(self, root: Path, bundle: Bundle, device: Device) -> None:
        self._bundle = bundle
        self._device = device
        self._supernet: Optional[Supernet] = None  # read once, and only if something is built
        self.path = root / bundle.sha256 / device.fingerprint
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
        except OSError as error:
            raise EngineError(
                f"cannot use the cache {self.path} ({error.strerror}): choose another --cache-dir"
            ) from None

    def model(self, mode: Mode) -> bytes:
        """The mode's plain ONNX model: from the cache when intact, else materialized and kept."""
        cached = self._read_model(mode)
        return cached if cached is not None else self._build(mode)

    def build(self, progress: Progress = lambda what, done, total: None) -> None:
        """Materialize every mode that the cache lacks."""
        for done, mode in enumerate(self._bundle.modes):
            progress(f"building {mode.id}", done, len(self._bundle.modes))
            self.model(mode)

    def _read_model(self, mode: Mode) -> Optional[bytes]:
        try:
            data = (self.path / f"{mode.id}.onnx").read_bytes()
            promised = (self.path / f"{mode.id}.sha256").read_text().strip()
        except OSError:
            return None
        except ValueError:
            promised = ""  # not even text
        if hashlib.sha256(data).hexdigest() == promised:
            return data
        warnings.warn(f"the cached model of mode '{mode.id}' is damaged: building it again", stacklevel=2)
        return None

    def _build(self, mode: Mode) -> bytes:
        from wenet_runtime.materialize import Supernet, materialize  # onnx loads only when something is built

        if self._supernet is None:
            self._supernet = Supernet.of(self._bundle)
        data = materialize(self._supernet, mode.groups, self._bundle.statistics(mode))
        write_atomic(self.path / f"{mode.id}.onnx", data, mode=0o600)
        write_atomic(self.path / f"{mode.id}.sha256", hashlib.sha256(data).hexdigest().encode(), mode=0o600)
        return data

    def read_profiles(self, meter: str) -> Optional[Dict[str, Profile]]:
        """The profile measured here earlier with this meter, or None when there is none that fits."""
        path = self.path / "profile.json"
        try:
            members = json.loads(path.read_text())
            profiles = {mode_id: Profile(**figures) for mode_id, figures in members["modes"].items()}
            own = (members["bundle_sha256"], members["device"]) == (self._bundle.sha256, asdict(self._device))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"the cached profile is unreadable ({error}): measuring again", stacklevel=2)
            return None
        expected = {mode.id for mode in self._bundle.modes}
        if own and members.get("meter") != meter:
            return None  # another meter's energy would be shown as this one's
        if not own or set(profiles) != expected or not all(map(_plausible, profiles.values())):
            warnings.warn("the cached profile does not fit this bundle and device: measuring again", stacklevel=2)
            return None
        return profiles

    def write_profiles(self, profiles: Mapping[str, Profile], *, meter: str, measured_at: str) -> None:
        """Keep a profile for later starts with the same source of energy."""
        members = {
            "bundle_sha256": self._bundle.sha256,
            "device": asdict(self._device),
            "measured_at": measured_at,
            "meter": meter,
            "modes": {mode_id: asdict(profile) for mode_id, profile in profiles.items()},
        }
        write_atomic(self.path / "profile.json", json.dumps(members, indent=1).encode(), mode=0o600)
