"""Opens a bundle on this device: settings → engines in the cache, modes in a pool, and what each costs."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from wenet_runtime.builder import DeviceCache
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.device import this_device
from wenet_runtime.engines import ENGINES
from wenet_runtime.engines.auto import AUTO
from wenet_runtime.engines.base import Artifact, Backend, EngineOptions
from wenet_runtime.errors import EngineError, SettingsError
from wenet_runtime.loader import Loader
from wenet_runtime.meters.base import Meter
from wenet_runtime.pool import Pool
from wenet_runtime.power_budget import PowerBudget
from wenet_runtime.profile import Profile
from wenet_runtime.profile_file import DeviceProfile
from wenet_runtime.registry import make as make_one
from wenet_runtime.service.costs import LEAST_ROUNDS, TUNING_SHARE, Costs
from wenet_runtime.service.engine_choice import choice_path, chosen_engine
from wenet_runtime.service.metering import know_idle, open_meter
from wenet_runtime.service.signing import open_bundle
from wenet_runtime.settings import Settings
from wenet_runtime.tuner import Tuner, plan_id

Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """No progress shown."""
    del what, done, total


@dataclass(frozen=True)
class Device:
    """A bundle opened on this device: its modes loaded or ready to be, its meter running, its costs known.

    Attributes:
        profiles: of every mode that is offered and fits into the memory it may take, most accurate first.
        measured: all that is known, also of modes that are not offered.
        meter_name: which of the meters it is.
        chosen: why this engine, where it was chosen by measuring.
    """

    bundle: Bundle
    cache: DeviceCache
    pool: Pool
    meter: Meter
    profiles: Dict[str, Profile]
    measured: DeviceProfile
    meter_name: str
    chosen: str = ""

    def loader(self, settings: Settings) -> Optional[Loader]:
        """With a limit of memory: what keeps to it from now on, the fastest sound mode loaded. Raises as `Loader`."""
        if settings.memory_mb is None:
            return None
        failures: List[EngineError] = []
        for fastest in sorted(self.profiles, key=lambda mode_id: self.profiles[mode_id].p50_ms):
            try:
                return Loader(self.pool, settings.memory_mb, fastest, self._order(settings))
            except EngineError as error:
                failures.append(error)
                self.pool.reject(fastest, str(error))
        raise failures[0]

    def _order(self, settings: Settings) -> List[str]:
        """Modes by their use to requests that bring no options of their own, most useful first."""

        def use(mode_id: str) -> "tuple[bool, bool]":
            late = settings.budget_ms is not None and self.profiles[mode_id].p50_ms > settings.budget_ms
            return mode_id != settings.mode, late

        return sorted(self.profiles, key=use)  # within these, the most accurate first

    @property
    def given(self) -> "Given":
        """What another bundle on this device shares."""
        return Given(self.meter, self.meter_name)

    def close(self) -> None:
        """Free the engines and stop the meter."""
        with ExitStack() as stack:  # either is closed whatever the other does
            stack.callback(self.meter.close)
            self.pool.close()


@dataclass(frozen=True)
class Given:
    """What is there already when another bundle is opened beside one that is served; nothing of it is closed.

    Attributes:
        meter, meter_name: the source of energy, idle watts known.
        bundle: verified already; None to open that of the settings.
        power: what the daemon's power budget or battery was served by first; None without one.
    """

    meter: Meter
    meter_name: str
    bundle: Optional[Bundle] = None
    power: Optional[PowerBudget] = None


def open_cache(settings: Settings) -> DeviceCache:
    """The cache of this bundle on this device, engines not loaded. Raises `BundleError`, `EngineError`."""
    return open_backend(settings)[0]


def open_backend(settings: Settings) -> Tuple[DeviceCache, Backend]:
    """That cache, and the engine that it builds for."""
    bundle = open_bundle(settings)
    backend, _ = _backend(settings, bundle)
    return _cache(settings, bundle, backend), backend


def _backend(settings: Settings, bundle: Bundle) -> Tuple[Backend, str]:
    """The engine of the settings; for `auto` the quickest here, and a sentence that says so."""

    options = EngineOptions(settings.cache_dir.expanduser(), tuple(settings.fp32_layers))

    def make(name: str) -> Backend:
        parts = (bundle, settings.threads or 1, options)
        backend: Backend = make_one(
            ENGINES, name, *parts, kind="engine", error=EngineError, interface=Backend, also=(AUTO,)
        )
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


def open_device(
    settings: Settings,
    progress: Progress = silent,
    *,
    profile_again: bool = False,
    batch_sizes: Sequence[int] = (),
    select: Optional[int] = None,
    given: Optional[Given] = None,
) -> Device:
    """Verify the bundle, build what the cache lacks, load the modes that are offered, and read or measure their costs.

    With a limit of memory modes are loaded only while they are measured; see `Device.loader`.

    Args:
        settings: which bundle, engine, meter and limits.
        progress: told (what, done, total).
        profile_again: measure all modes, whatever is known.
        batch_sizes: rows of the whole batches that are then measured too.
        select: how many modes to offer from now on, chosen by what is then measured; 0 offers all. As before if None.
        given: what is there already; None opens all of it.

    Raises:
        BundleError, EngineError, MeterError, SettingsError: what is wrong, and what to do.
    """
    bundle = given.bundle if given is not None and given.bundle is not None else open_bundle(settings)
    _check_sizes(bundle, batch_sizes)
    with ExitStack() as failed:
        if given is None:
            meter_name, meter, _ = open_meter(settings)
            failed.callback(meter.close)
            know_idle(settings, meter)  # before anything is built, loaded or measured
        else:
            meter_name, meter = given.meter_name, given.meter
        backend, chosen = _backend(settings, bundle)
        failed.callback(backend.close)  # closing twice, by the pool as well, is harmless
        cache = _cache(settings, bundle, backend)
        if backend.name != "sim":  # what is simulated needs no model
            cache.build(progress)
        pool = Pool(bundle, backend, cache.artifact, progress, load=False, release=cache.release)
        failed.callback(pool.close)
        costs = Costs(settings, cache, pool, meter, backend, progress)
        if profile_again:
            profiles, measured = costs.again(batch_sizes, select)
        else:
            profiles, measured = costs.known_or_measured()
        failed.pop_all()
    return Device(bundle, cache, pool, meter, profiles, measured, meter_name, chosen)


def _check_sizes(bundle: Bundle, sizes: Sequence[int]) -> None:
    most = bundle.manifest.max_batch
    beyond = [size for size in sizes if size > most]
    if beyond:
        raise SettingsError(f"--batch-sizes asks for {beyond[0]} rows, but this bundle takes at most {most} at once")
