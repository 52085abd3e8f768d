"""Modes → engines of this device, in the cache; and the profile measured here beside them.

`<cache>/<bundle sha256>/<device fingerprint>/` lies outside the bundle, is readable by its owner only,
and never travels. A damaged or foreign entry is ignored with a warning and built again.
"""

import contextlib
import fcntl
import os
import stat
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, Mapping, Optional, Tuple

from numpy.typing import NDArray

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.device import Device
from wenet_runtime.device_graph import lowered
from wenet_runtime.engines.base import Artifact, Backend
from wenet_runtime.errors import EngineError
from wenet_runtime.files import make_private, sha256_of
from wenet_runtime.memory import Footprint, footprint_of, give_back
from wenet_runtime.mode_store import INDEX, ModeStore, write_modes
from wenet_runtime.profile_file import FILE, DeviceProfile, read_profile, write_profile
from wenet_runtime.refused_file import read_refused, write_refused

if TYPE_CHECKING:
    from wenet_runtime.materialize import Supernet

Progress = Callable[[str, int, int], None]
# (supernet, mode, its statistics) → groups that layers are computed with where that is quicker.
Emitted = Callable[["Supernet", Mode, Mapping[str, NDArray[Any]]], Mapping[str, int]]

LOCK = "lock"


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total


def _warn_open(*folders: Path) -> None:
    """Say so when others can put their own models in the place of what lies here. Raises `OSError`."""
    for folder in folders:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & 0o022:
            warnings.warn(
                f"the cache {folder} is open: others may write to it (mode {mode:04o}) and change what is served; "
                f"`chmod 700 {folder}`",
                stacklevel=3,
            )


class DeviceCache:
    """What this device keeps of one bundle.

    Args:
        root: the cache's root, from `--cache-dir`.
        bundle: the bundle it belongs to.
        device: the device it belongs to.
        backend: builds what the cache lacks.
        emitted: with how many groups a mode's layers are computed; by default their own.
        plan_id: names the plan behind `emitted`: modes built by another plan are built again.

    Attributes:
        bundle, device, path: what it belongs to, and where it lies.
    """

    def __init__(
        self,
        root: Path,
        bundle: Bundle,
        device: Device,
        backend: Backend,
        *,
        emitted: Emitted = lambda supernet, mode, statistics: {},
        plan_id: str = "",
    ) -> None:
        self.bundle = bundle
        self.device = device
        self._backend = backend
        self._emitted = emitted
        self._store: Optional[ModeStore] = None
        self._identity = {
            "bundle": bundle.sha256,
            "plan": plan_id,
            **{name: str(value) for name, value in asdict(device).items()},
        }
        # A folder for each plan, so that switching between them neither rebuilds nor pulls files from under another.
        self.path = root / bundle.sha256 / "-".join(filter(None, (device.fingerprint, plan_id)))
        try:
            make_private(self.path)
            self.path.chmod(0o700)
            _warn_open(root, self.path.parent)
        except OSError as error:
            raise EngineError(
                f"cannot use the cache {self.path} ({error.strerror}): choose another --cache-dir"
            ) from None

    def artifact(self, mode: Mode) -> Artifact:
        """The mode as the engine built it; all modes are built first if the cache has not all of them intact."""
        try:
            return self._opened(_silent).artifact(mode.id)
        except OSError as error:
            raise EngineError(
                f"the cached model of mode '{mode.id}' has gone ({error.strerror}): start again to build it"
            ) from None

    def release(self, mode_id: str, kept: Iterable[str]) -> None:
        """A mode is not used any more: the system may have its memory, but for what kept modes share with it."""
        if self._store is not None:
            self._store.release(mode_id, kept)

    def build(self, progress: Progress = _silent) -> None:
        """Build every mode unless the cache has all of them intact.

        Raises:
            EngineError: the engine does not take a mode, or the cache cannot be written.
            BundleError: the bundle's parts do not fit together.
        """
        self._opened(progress)

    def footprints(self) -> Optional[Dict[str, Footprint]]:
        """What every mode takes in memory, by its id; None where nothing is built yet."""
        store = self._store or self._read()
        return None if store is None else {one.id: footprint_of(store.artifact(one.id)) for one in self.bundle.modes}

    def refused(self) -> Dict[str, str]:
        """Which of the modes that are built must not serve, and why."""
        try:
            known = read_refused(self.path, built=sha256_of(self.path / INDEX))
        except FileNotFoundError:
            return {}  # nothing is built
        return {one.id: known[one.id] for one in self.bundle.modes if one.id in known}

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Keep modes from serving until something else is built of them; without reasons, let all serve.

        Args:
            reasons: why, by mode id.

        Raises:
            EngineError: the cache cannot be written.
        """
        try:
            with self._lock():
                write_refused(self.path, reasons, built=sha256_of(self.path / INDEX))
        except OSError as error:
            raise self._unwritable(error) from None

    def _opened(self, progress: Progress) -> ModeStore:
        if self._store is None:
            with self._lock():  # of two processes that start on an empty cache, one builds
                self._store = self._read() or self._build(progress)
        return self._store

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            descriptor = os.open(str(self.path / LOCK), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # let go of by the system if this process ends
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> Optional[ModeStore]:
        try:
            return ModeStore(self.path, identity=self._identity, modes=[mode.id for mode in self.bundle.modes])
        except FileNotFoundError as error:
            if (self.path / INDEX).exists():
                warnings.warn(f"the cache lacks {Path(error.filename).name}: building all modes again", stacklevel=4)
        except (OSError, ValueError) as error:
            warnings.warn(f"the cache cannot be used, {error}: building all modes again", stacklevel=4)
        return None

    def _build(self, progress: Progress) -> ModeStore:
        try:
            self._forget_measurements()
            write_modes(self.path, self._built(progress), identity=self._identity)
        except OSError as error:
            raise self._unwritable(error) from None
        give_back()
        store = self._read()
        if store is None:
            raise EngineError(f"what was written to {self.path} cannot be read again: choose another --cache-dir")
        return store

    def _forget_measurements(self) -> None:
        """What was measured may not be what is built now; what was chosen stays chosen."""
        before = self.read_profile()
        if before is not None and before.selected is not None:
            self.write_profile(replace(before, modes={}))
        else:
            with contextlib.suppress(FileNotFoundError):
                (self.path / FILE).unlink()

    def _built(self, progress: Progress) -> Iterator[Tuple[str, Artifact]]:
        from wenet_runtime.materialize import Supernet  # onnx loads only when something is built

        supernet = Supernet.of(self.bundle)
        modes = self.bundle.modes
        for done, mode in enumerate(modes):
            progress(f"building {mode.id}", done, len(modes))
            yield mode.id, self._artifact_of(supernet, mode)  # not kept here while the next one is built

    def _artifact_of(self, supernet: "Supernet", mode: Mode) -> Artifact:
        statistics = self.bundle.statistics(mode)
        emitted = self._emitted(supernet, mode, statistics)
        graph = lowered(self._backend, supernet, mode, statistics, emitted)
        return self._backend.build(graph, mode.id)

    def _unwritable(self, error: OSError) -> EngineError:
        return EngineError(f"cannot write the cache {self.path} ({error.strerror}): choose another --cache-dir")

    def read_profile(self) -> Optional[DeviceProfile]:
        """All that was measured here earlier, and which modes are offered; None when there is nothing that fits."""
        known = [mode.id for mode in self.bundle.modes]
        return read_profile(self.path, bundle_sha256=self.bundle.sha256, device=self.device, modes=known)

    def write_profile(self, found: DeviceProfile) -> None:
        """Keep a profile for later starts with the same source of energy. Raises `EngineError`."""
        try:
            write_profile(self.path, found, bundle_sha256=self.bundle.sha256, device=self.device)
        except OSError as error:
            raise self._unwritable(error) from None

    def update_profile(self, changed: Callable[[Optional[DeviceProfile]], DeviceProfile]) -> DeviceProfile:
        """Keep what is made of the profile that lies here now, while no other process writes one.

        Args:
            changed: gets what `read_profile` tells.

        Returns:
            What was written.

        Raises:
            EngineError: it cannot be written.
        """
        with self._lock():
            found = changed(self.read_profile())
            self.write_profile(found)
        return found
