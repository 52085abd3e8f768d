"""Opens a bundle on this device: settings → engines in the cache, modes in a pool, and what each costs."""

import dataclasses
import datetime
import os
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Tuple

from wenet_runtime.builder import DeviceCache
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.canary import golden_inputs
from wenet_runtime.device import this_device
from wenet_runtime.engines import ENGINES
from wenet_runtime.engines.auto import AUTO
from wenet_runtime.engines.base import Artifact, Backend, Engine
from wenet_runtime.errors import EngineError, MeterError, SettingsError
from wenet_runtime.loader import Loader, in_turns, measurable
from wenet_runtime.memory import MB
from wenet_runtime.meters import METERS
from wenet_runtime.meters.base import Meter
from wenet_runtime.pool import Pool
from wenet_runtime.profile import Profile
from wenet_runtime.profiler import measure
from wenet_runtime.registry import load
from wenet_runtime.service.engine_choice import choice_path, chosen_engine
from wenet_runtime.settings import Settings
from wenet_runtime.threads import tuned
from wenet_runtime.tuner import Tuner, plan_id

Progress = Callable[[str, int, int], None]

TUNING_SHARE = 5  # a fifth of the profile's rounds tells numbers of threads apart that matter
LEAST_ROUNDS = 10


def silent(what: str, done: int, total: int) -> None:
    """No progress shown."""
    del what, done, total


@dataclass(frozen=True)
class Device:
    """A bundle opened on this device: its modes loaded or ready to be, its meter running, its costs known.

    Attributes:
        profiles: of every mode that fits into the memory it may take, most accurate first.
        chosen: why this engine, where it was chosen by measuring.
    """

    bundle: Bundle
    cache: DeviceCache
    pool: Pool
    meter: Meter
    profiles: Dict[str, Profile]
    chosen: str = ""

    def loader(self, settings: Settings) -> Optional[Loader]:
        """With a limit of memory: what keeps to it from now on, the fastest mode loaded. Raises as `Loader` does."""
        if settings.memory_mb is None:
            return None
        fastest = min(self.profiles, key=lambda mode_id: self.profiles[mode_id].p50_ms)
        return Loader(self.pool, settings.memory_mb, fastest, self._order(settings))

    def _order(self, settings: Settings) -> List[str]:
        """Modes by their use to requests that bring no options of their own, most useful first."""

        def use(mode_id: str) -> "tuple[bool, bool]":
            late = settings.budget_ms is not None and self.profiles[mode_id].p50_ms > settings.budget_ms
            return mode_id != settings.mode, late

        return sorted(self.profiles, key=use)  # within these, the most accurate first

    def close(self) -> None:
        """Free the engines and stop the meter."""
        self.pool.close()
        self.meter.close()


def open_cache(settings: Settings) -> DeviceCache:
    """The cache of this bundle on this device, engines not loaded. Raises `BundleError`, `EngineError`."""
    bundle = Bundle(settings.bundle)
    return _cache(settings, bundle, _backend(settings, bundle)[0])


def _backend(settings: Settings, bundle: Bundle) -> Tuple[Backend, str]:
    """The engine of the settings; for `auto` the quickest here, and a sentence that says so."""

    def make(name: str) -> Backend:
        backend: Backend = load(ENGINES, name, kind="engine", error=EngineError)(bundle, settings.threads or 1)
        return backend

    if settings.engine != AUTO:
        return make(settings.engine), ""
    path = choice_path(settings.cache_dir.expanduser(), bundle)
    caches: Dict[str, DeviceCache] = {}

    def artifact_of(backend: Backend, mode: Mode) -> Artifact:
        if backend.name not in caches:
            caches[backend.name] = _cache(settings, bundle, backend)
        return caches[backend.name].artifact(mode)

    rounds = max(LEAST_ROUNDS, settings.profile_rounds // TUNING_SHARE)
    found = chosen_engine(
        path, bundle, make, artifact_of, threads=settings.threads, plan_id=plan_id(settings.tune), rounds=rounds
    )
    return make(found.engine), str(found)


def _cache(settings: Settings, bundle: Bundle, backend: Backend) -> DeviceCache:
    root = settings.cache_dir.expanduser()
    device = this_device(backend.name, backend.version, settings.threads)
    tuner = Tuner(root, device, backend, measured=settings.tune)
    return DeviceCache(root, bundle, device, backend, emitted=tuner.emitted, plan_id=plan_id(settings.tune))


def open_device(settings: Settings, progress: Progress = silent, *, profile_again: bool = False) -> Device:
    """Verify the bundle, build what the cache lacks, load every mode, and read or measure what each costs here.

    With a limit of memory modes are loaded only while they are measured; see `Device.loader`.

    Raises:
        BundleError, EngineError, MeterError, SettingsError: what is wrong, and what to do.
    """
    bundle = Bundle(settings.bundle)
    backend, chosen = _backend(settings, bundle)
    meter: Meter = load(METERS, settings.meter, kind="meter", error=MeterError)()
    cache = _cache(settings, bundle, backend)
    if backend.name != "sim":  # what is simulated needs no model
        cache.build(progress)
    pool = Pool(bundle, backend, cache.artifact, progress, load=False, release=cache.release)
    try:
        profiles = _profiled(settings, Device(bundle, cache, pool, meter, {}), backend, progress, again=profile_again)
    except BaseException:
        pool.close()
        raise
    return Device(bundle, cache, pool, meter, profiles, chosen)


def _profiled(
    settings: Settings, device: Device, backend: Backend, progress: Progress, *, again: bool
) -> Dict[str, Profile]:
    """Load the modes, and read or measure what they cost; without a limit of memory they are resident afterwards."""
    pool, cache, source = device.pool, device.cache, device.meter.source
    modes = _fitting(settings, device)
    known = None if again else cache.read_profiles(source, modes)
    if known is not None:
        pool.threads.update({one: profile.threads for one, profile in known.items() if profile.threads is not None})
    elif settings.threads == 0:
        pool.threads.update(_tuned(settings, device, backend, modes, progress))
    if settings.memory_mb is None:
        pool.load_all(modes)
    if known is not None:
        return {mode_id: known[mode_id] for mode_id in modes}
    profiles: Dict[str, Profile] = {}
    for engines in in_turns(pool, settings.memory_mb):
        measured = measure(
            engines,
            golden_inputs(device.bundle, rows=1),
            rounds=settings.profile_rounds,
            meter=device.meter,
            progress=lambda done, total: progress("profiling", done, total),
        )
        for mode_id, profile in measured.items():
            profiles[mode_id] = dataclasses.replace(profile, threads=pool.threads.get(mode_id))
    measured_at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    cache.write_profiles(profiles, meter=source, measured_at=measured_at)
    return {mode_id: profiles[mode_id] for mode_id in modes}


def _fitting(settings: Settings, device: Device) -> List[str]:
    """The modes that fit into the memory they may take, most accurate first. Raises `SettingsError`."""
    fitting = measurable(device.pool, settings.memory_mb)
    least = min(device.bundle.modes, key=lambda mode: mode.macs).id
    if least not in fitting:
        needed_mb = device.pool.footprint(least).alone / MB
        raise SettingsError(
            f"--memory-mb {settings.memory_mb:g} does not hold the least mode, {least}: give at least {needed_mb:.3g}"
        )
    return fitting


def _tuned(
    settings: Settings, device: Device, backend: Backend, modes: List[str], progress: Progress
) -> Dict[str, int]:
    """The number of threads with which each mode is quickest."""
    found: Dict[str, int] = {}
    inputs = golden_inputs(device.bundle, rows=1)
    rounds = max(LEAST_ROUNDS, settings.profile_rounds // TUNING_SHARE)
    for done, mode_id in enumerate(modes):
        progress("choosing threads", done, len(modes))
        mode = device.bundle.mode(mode_id)

        def with_threads(count: int, mode: Mode = mode) -> Engine:
            return backend.load(mode, lambda: device.cache.artifact(mode), threads=count)

        found[mode_id] = tuned(with_threads, inputs, cores=os.cpu_count() or 1, rounds=rounds)
    return found
