"""What a bundle's modes cost on this device: read from the cache or measured, and which of them are offered."""

import dataclasses
import datetime
import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from numpy.typing import NDArray

from wenet_runtime.builder import DeviceCache
from wenet_runtime.bundle import Mode
from wenet_runtime.canary import golden_inputs
from wenet_runtime.conditions import read_conditions
from wenet_runtime.engines import ON_GPU
from wenet_runtime.engines.base import Backend, Engine
from wenet_runtime.errors import EngineError, SettingsError
from wenet_runtime.loader import in_turns, measurable
from wenet_runtime.memory import MB, together
from wenet_runtime.meters.base import Meter
from wenet_runtime.pool import Pool
from wenet_runtime.profile import Profile
from wenet_runtime.profile_file import DeviceProfile
from wenet_runtime.profiler import batch_medians, sample, summarise
from wenet_runtime.selection import Candidate, Selected, select
from wenet_runtime.settings import Settings
from wenet_runtime.threads import tuned

Progress = Callable[[str, int, int], None]
Samples = Mapping[str, NDArray[Any]]

TUNING_SHARE = 5  # a fifth of the profile's rounds tells numbers of threads apart that matter
LEAST_ROUNDS = 10
PRIMED = 1  # runs before each one that counts

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Costs:
    """Reads or measures what modes cost, and loads them: those that are offered are resident afterwards, unless
    memory is limited.

    Attributes:
        settings: rounds, threads and the limit of memory.
        cache: keeps what is measured.
        pool: with no mode resident.
        meter: the source of energy.
        backend: loads a mode to try numbers of threads.
        progress: told (what, done, total).
    """

    settings: Settings
    cache: DeviceCache
    pool: Pool
    meter: Meter
    backend: Backend
    progress: Progress

    def known_or_measured(self) -> Tuple[Dict[str, Profile], DeviceProfile]:
        """The profiles of the modes that are offered, most accurate first, and all that is known.

        Raises:
            EngineError: no mode is sound.
        """
        found = self.cache.read_profile()
        selected = None if found is None else found.selected
        self._reject_refused()
        modes = self._without_newly_unsound(self._fitting(selected), found)
        profiles = None if found is None else found.of(self.meter.source, modes)
        if found is None or profiles is None:
            measured, _ = self._measured(modes, (), selected)
            modes = list(measured.modes)
            self._check_left(modes)
            self.cache.update_profile(partial(measured.joined, found))
            found = measured
        else:
            chosen = {one: profiles[one].threads for one in modes}
            self.pool.threads.update({one: count for one, count in chosen.items() if count is not None})
            if self.settings.memory_mb is None:
                modes = self.pool.load_sound(modes)
            self._check_left(modes)
        return self._offered(modes, found), found

    def again(self, batch_sizes: Sequence[int], keep: Optional[int]) -> Tuple[Dict[str, Profile], DeviceProfile]:
        """Measure all modes, and choose again which are offered.

        Args:
            batch_sizes: rows of the whole batches that are measured too.
            keep: how many modes to offer; 0 offers all, None as many as before.

        Returns, raises:
            As `known_or_measured`.
        """
        before = self.cache.read_profile()
        selected = None if before is None or keep == 0 else before.selected
        self._reject_refused()
        modes = self._fitting(None)
        if keep:
            self._check_side_by_side(modes)
        found, samples = self._measured(modes, batch_sizes, selected)
        modes = list(found.modes)
        self._check_left(modes)
        if keep:
            found = dataclasses.replace(found, selected=self._selected(found.modes, samples, keep))
        if keep is None:  # whoever chose while this was measured has chosen
            found = self.cache.update_profile(
                lambda now: found if now is None else dataclasses.replace(found, selected=now.selected)
            )
        else:
            self.cache.update_profile(lambda now: found)
        offered = [one for one in modes if found.selected is None or one in found.selected.modes]
        for one in set(self.pool.resident) - set(offered):
            self.pool.evict(one)
        self._check_left(offered)
        return self._offered(offered, found), found

    def _reject_refused(self) -> None:
        for mode_id, why in self.cache.refused().items():
            self.pool.reject(mode_id, f"`wenet-runtime build --verify` refused it: {why}")

    def _without_newly_unsound(self, modes: List[str], found: Optional[DeviceProfile]) -> List[str]:
        """Without those that are not profiled because they were unsound at the last start and still are."""
        missing = [] if found is None or not found.modes else [one for one in modes if one not in found.modes]
        for one in missing:
            self.pool.load_sound([one])
            self.pool.evict(one)
        return [one for one in modes if one not in self.pool.residency.out]

    def _check_left(self, modes: Sequence[str]) -> None:
        if not modes:
            mode_id, why = next(iter(self.pool.residency.out.items()))
            raise EngineError(f"no mode can serve on this device; of '{mode_id}': {why}")

    def _offered(self, modes: Sequence[str], found: DeviceProfile) -> Dict[str, Profile]:
        """The profiles of these modes; what was left out by choice is taken out of service with its reason."""
        if found.selected is not None:
            reasons = {one.id: one.why for one in found.selected.left}
            for one in self.pool.modes:
                if one not in found.selected.modes and one not in self.pool.residency.out:
                    why = reasons.get(one, "it was not measured then")
                    self.pool.take_out(
                        one,
                        f"`wenet-runtime profile --select {found.selected.wanted}` left it out on this device: {why}. "
                        "`wenet-runtime profile --select 0` offers all modes again",
                    )
        return {one: found.modes[one] for one in modes}

    def _fitting(self, selected: Optional[Selected]) -> List[str]:
        """The modes to offer that fit into the memory they may take, most accurate first. Raises `SettingsError`."""
        out = self.pool.residency.out
        wanted = [one for one in self.pool.modes if one not in out and (selected is None or one in selected.modes)]
        self._check_left(wanted)
        modes = self.cache.bundle.modes
        least = min((mode for mode in modes if mode.id in wanted), key=lambda mode: mode.macs).id
        fitting = [one for one in measurable(self.pool, self.settings.memory_mb) if one in wanted]
        if least not in fitting:
            raise SettingsError(
                f"--memory-mb {self.settings.memory_mb:g} does not hold the least mode, {least}: "
                f"give at least {self.pool.footprint(least).alone / MB:.3g}"
            )
        return fitting

    def _check_side_by_side(self, modes: Sequence[str]) -> None:
        limit_mb = self.settings.memory_mb
        if limit_mb is None:
            return
        wanted = [one for one in self.pool.modes if one not in self.pool.residency.out]
        needed_mb = together(self.pool.footprint(one) for one in wanted) / MB
        if len(modes) < len(wanted) or needed_mb > limit_mb:
            raise SettingsError(
                f"--select compares all modes side by side, which takes {needed_mb:.3g} MB, and --memory-mb is "
                f"{limit_mb:g}: leave it out here; the daemon may be given it all the same"
            )

    def _measured(
        self, modes: List[str], batch_sizes: Sequence[int], selected: Optional[Selected]
    ) -> Tuple[DeviceProfile, Samples]:
        """Load modes and measure those that are sound; of those that are loaded at the same time, samples may be
        compared pairwise."""
        if self.settings.threads == 0 and self.backend.name in ON_GPU:
            _LOG.warning("--threads 0 is left out: %s computes on the GPU, whatever the threads", self.backend.name)
        elif self.settings.threads == 0:
            self.pool.threads.update(self._tuned(modes))
        if self.settings.memory_mb is None:
            self.pool.load_sound(modes)
        inputs = golden_inputs(self.cache.bundle, rows=1)
        began = read_conditions()
        profiles: Dict[str, Profile] = {}
        samples: Dict[str, NDArray[Any]] = {}
        for engines in in_turns(self.pool, self.settings.memory_mb):
            rounds = self.settings.profile_rounds
            # As a layer table's rows and an explorer's finals are, so that all three mean the same.
            taken = sample(engines, inputs, rounds=rounds, primed=PRIMED, progress=self._told("profiling"))
            samples.update(taken)
            profiles.update(summarise(taken, engines, inputs, meter=self.meter))
            if batch_sizes:
                batches = self._batches(engines, batch_sizes)
                profiles.update({one: dataclasses.replace(profiles[one], batch_ms=batches[one]) for one in engines})
        threads = self.pool.threads
        return (
            DeviceProfile(
                {one: dataclasses.replace(profiles[one], threads=threads.get(one)) for one in modes if one in profiles},
                self.meter.source,
                datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                {"start": dataclasses.asdict(began), "end": dataclasses.asdict(read_conditions())},
                selected,
            ),
            samples,
        )

    def _batches(self, engines: Mapping[str, Engine], sizes: Sequence[int]) -> Dict[str, Dict[int, float]]:
        inputs = golden_inputs(self.cache.bundle)
        rounds = max(LEAST_ROUNDS, self.settings.profile_rounds // TUNING_SHARE)
        return batch_medians(engines, inputs, sizes, rounds=rounds, progress=self._told("batch sizes"))

    def _selected(self, profiles: Mapping[str, Profile], samples: Samples, keep: int) -> Selected:
        candidates = [
            Candidate(one, self.cache.bundle.mode(one).accuracy.value, samples[one], profiles[one].energy_mj)
            for one in profiles
        ]
        kept, left = select(candidates, keep)
        return Selected(keep, tuple(kept), tuple(left))

    def _told(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(what, done, total)

    def _tuned(self, modes: List[str]) -> Dict[str, int]:
        """The number of threads with which each mode is quickest."""
        found: Dict[str, int] = {}
        inputs = golden_inputs(self.cache.bundle, rows=1)
        rounds = max(LEAST_ROUNDS, self.settings.profile_rounds // TUNING_SHARE)
        for done, mode_id in enumerate(modes):
            self.progress("choosing threads", done, len(modes))
            mode = self.cache.bundle.mode(mode_id)

            def with_threads(count: int, mode: Mode = mode) -> Engine:
                return self.backend.load(mode, lambda: self.cache.artifact(mode), threads=count)

            try:
                found[mode_id] = tuned(with_threads, inputs, cores=os.cpu_count() or 1, rounds=rounds)
            except EngineError as error:
                self.pool.reject(mode_id, str(error))
        return found
