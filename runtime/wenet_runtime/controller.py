"""Owns prediction: profiles × live slowdown → the policy's choice; every result is fed back."""

import logging
import math
from dataclasses import replace
from typing import Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from wenet_runtime.budget import Deadline, RequestOptions
from wenet_runtime.bundle import Mode
from wenet_runtime.errors import BudgetError, BudgetImpossible, EnergyUnavailable, NotResident, UnknownMode
from wenet_runtime.forecast import Forecast
from wenet_runtime.policy import Choice, Limits, select
from wenet_runtime.prediction import Predictor
from wenet_runtime.profile import Profile
from wenet_runtime.residency import Residency
from wenet_runtime.slowdown import Slowdown

_LOG = logging.getLogger(__name__)
KEPT_SELECTIONS = 256  # pins and floors whose modes are kept


class Controller:
    """Chooses a mode per request. Clocks are passed in; not for several threads at once: `runtime` holds a lock.

    Args:
        modes: the modes that can be served.
        profiles: what each costs on this device, by mode id.
        attainment: probability with which a chosen mode must finish in time.
        idle_w: what the device draws when it does nothing, W; None if unknown.

    Raises:
        BudgetError: an impossible attainment, or no mode with a possible profile. One without is left out, and said.
    """

    def __init__(
        self,
        modes: Sequence[Mode],
        profiles: Mapping[str, Profile],
        attainment: float = 0.99,
        *,
        idle_w: Optional[float] = None,
    ) -> None:
        if not 0 < attainment < 1:
            raise BudgetError(f"attainment is {attainment}: give a number between 0 and 1, e.g. 0.99")
        modes = _possible(modes, profiles)
        self._modes: Dict[str, Mode] = {mode.id: mode for mode in modes}
        self.profiles = {mode.id: profiles[mode.id] for mode in modes}
        # Asked for with every request that waits, and mostly none: those whose profile was measured in batches.
        self.batched = [profile for profile in self.profiles.values() if profile.batch_ms]
        self.attainment = attainment
        self.idle_w = idle_w
        self.predictor = Predictor(modes, profiles, attainment, idle_w)
        self.throttled = False  # the device says that heat or power holds its clock down
        self._selections: Dict[Tuple[Optional[str], Optional[float]], Tuple[Mapping[str, str], List[int]]] = {}

    def recalibrate(self, profiles: Mapping[str, Profile]) -> None:
        """Put newer profiles in the place of some; what was learned since the old ones is forgotten.

        Raises:
            BudgetError: a median is not possible. Nothing is changed then.
        """
        for mode_id, profile in profiles.items():
            if mode_id not in self._modes or not (math.isfinite(profile.p50_ms) and profile.p50_ms > 0):
                raise BudgetError(f"mode '{mode_id}' cannot take {profile.p50_ms} ms: measure again")
        self.profiles.update(profiles)
        self.batched = [profile for profile in self.profiles.values() if profile.batch_ms]
        self.predictor = Predictor(list(self._modes.values()), self.profiles, self.attainment, self.idle_w)
        self._selections.clear()  # modes of equal accuracy may have changed places

    @property
    def slowdown(self) -> Slowdown:
        """The live filter."""
        return self.predictor.slowdown

    def allowed(self, options: RequestOptions, out: Optional[Mapping[str, str]] = None) -> List[Mode]:
        """The modes a request accepts, most accurate first: its pin, and its accuracy floor.

        Args:
            options: the request's.
            out: modes that are out of service, and why.

        Raises:
            UnknownMode: the pinned mode is not served.
            BudgetImpossible: no mode is accurate enough.
        """
        ids = self.predictor.ids
        return [self._modes[ids[at]] for at in self.indexes(options, Residency(out={} if out is None else out))]

    def indexes(self, options: RequestOptions, residency: Optional[Residency]) -> List[int]:
        """The same as places in a forecast.

        Raises:
            NotResident: the modes that it accepts have failed, and are tried again.
            UnknownMode, BudgetImpossible: see `allowed`.
        """
        key = (options.mode, options.budget.min_accuracy)
        kept = self._selections.get(key)
        out = NOTHING_OUT if residency is None else residency.out
        if kept is not None and kept[0] is out:  # the pool replaces it as a whole
            return kept[1]
        found = self._indexes(options, out, frozenset() if residency is None else residency.failing)
        if len(self._selections) >= KEPT_SELECTIONS:
            self._selections.clear()
        self._selections[key] = (out, found)
        return found

    def _indexes(self, options: RequestOptions, out: Mapping[str, str], failing: FrozenSet[str]) -> List[int]:
        ids, accuracies = self.predictor.ids, self.predictor.accuracies
        there = [at for at, mode_id in enumerate(ids) if mode_id not in out]
        if options.mode is not None:
            if options.mode in failing:
                raise NotResident(f"mode '{options.mode}' is out of service: {out[options.mode]}")
            if options.mode in out:
                raise UnknownMode(f"mode '{options.mode}' is not served: {out[options.mode]}")
            if options.mode not in self._modes:
                raise UnknownMode(f"no mode '{options.mode}': served are {', '.join(ids)}")
            there = [self.predictor.index[options.mode]]
        floor = options.budget.min_accuracy
        accurate = there if floor is None else [at for at in there if accuracies[at] >= floor]
        if not accurate and any(floor is None or accuracies[self.predictor.index[one]] >= floor for one in failing):
            raise NotResident("every mode that this request accepts has failed; they are tried again")
        if floor is not None and not accurate:
            best = ids[there[0]] if there else "none"
            value = accuracies[there[0]] if there else math.nan
            raise BudgetImpossible(f"no allowed mode reaches accuracy {floor:g}: the best is {best} with {value:.4f}")
        return accurate

    def forecast(self, rows: int) -> Forecast:
        """What every mode is predicted to take now for a batch of `rows`."""
        return self.predictor.forecast(rows)

    def choose(
        self,
        options: RequestOptions,
        deadline: Deadline,
        *,
        rows: int,
        now_s: float,
        wait_ms: float = 0,
        room_ms: float = math.inf,
        price_mj: float = math.inf,
        future: Optional[Callable[[float], float]] = None,
        residency: Optional[Residency] = None,
    ) -> Choice:
        """Choose a mode for a request.

        Args:
            options: what the request asks for.
            deadline: its clock; of a batch, the tightest.
            rows: rows of its batch.
            now_s: the monotonic clock.
            wait_ms: time it will still wait before it can start; 0 once the engine is free.
            room_ms: what others who wait, or may come, leave it.
            price_mj: what the power budget leaves it, above idle and per row.
            future: what later requests are worth, by how long this one runs; see `policy.Limits`.
            residency: which modes are there; all if not given.

        Raises:
            EnergyUnavailable: an energy budget, but no allowed mode's energy is known.
            UnknownMode, BudgetImpossible: see `allowed`.
            BudgetImpossible, InfeasibleBudget, NotResident: see `policy.select`.
        """
        self.predictor.forget(now_s)
        forecast = self.predictor.forecast(rows)
        allowed = self.indexes(options, residency)
        energy_mj = options.budget.energy_mj
        if energy_mj is not None and all(forecast.energies_mj[at] is None for at in allowed):
            raise EnergyUnavailable(
                "an energy budget needs a meter or a profiled energy, and this device has neither: "
                "choose --meter, or drop the energy budget"
            )
        limits = Limits(
            left_ms=deadline.left_ms(now_s) - wait_ms,
            limit_ms=deadline.limit_ms,
            energy_mj=energy_mj,
            on_miss=options.on_miss,
            pinned=options.mode is not None,
            room_ms=room_ms,
            price_mj=price_mj,
            future=future,
        )
        resident = None
        if residency is not None and len(residency.resident) < len(forecast.ids):
            resident = [at for at in allowed if forecast.ids[at] in residency.resident]
        choice = select(forecast, allowed, limits, resident)
        return self._by_heat(choice, forecast, limits) if self.throttled else choice

    def _by_heat(self, choice: Choice, forecast: Forecast, limits: Limits) -> Choice:
        """Says so where a better mode would have answered had the device not been slowed."""
        over = choice.passed_over
        if choice.reason != "fits" or over is None or over.why not in ("too-slow", "no-room"):
            return choice
        unslowed_ms = over.value / max(1.0, self.predictor.factor_of(over.mode_id))
        return replace(choice, reason="thermal") if unslowed_ms <= min(limits.left_ms, limits.room_ms) else choice

    def fastest_at(self, options: RequestOptions, rows: int, residency: Optional[Residency] = None) -> int:
        """The fastest mode that a request accepts, as a place in a forecast. Raises what `allowed` raises."""
        forecast = self.predictor.forecast(rows)
        allowed = self.indexes(options, residency)
        if residency is not None and len(residency.resident) < len(forecast.ids):
            allowed = [at for at in allowed if forecast.ids[at] in residency.resident] or allowed
        return min(allowed, key=forecast.medians_ms.__getitem__)

    def observe(self, mode_id: str, infer_ms: float, rows: int, now_s: float) -> None:
        """Feed back one inference's measured time."""
        self.predictor.observe(mode_id, infer_ms, rows, now_s)

    def energy_mj(self, mode_id: str) -> Optional[float]:
        """The profiled energy of a mode per row, mJ."""
        return self.profiles[mode_id].energy_mj


NOTHING_OUT: Mapping[str, str] = {}


def _possible(modes: Sequence[Mode], profiles: Mapping[str, Profile]) -> List[Mode]:
    """The modes whose profile can be true: a median that is finite and above 0."""
    possible = []
    for mode in modes:
        profile = profiles.get(mode.id)
        if profile is not None and math.isfinite(profile.p50_ms) and profile.p50_ms > 0:
            possible.append(mode)
        else:
            found = "no profile" if profile is None else f"a median of {profile.p50_ms} ms"
            _LOG.warning("mode %s has %s and is left out: run `wenet-runtime profile` again", mode.id, found)
    if not possible:
        raise BudgetError("no mode has a possible profile: run `wenet-runtime profile` again")
    return possible
