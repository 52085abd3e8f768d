"""Owns prediction: profiles × live slowdown → candidates for the policy; every result is fed back."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Deque, Dict, List, Mapping, Optional, Sequence

from wenet_runtime.budget import Deadline, RequestOptions
from wenet_runtime.bundle import Mode
from wenet_runtime.errors import BudgetImpossible, EnergyUnavailable, UnknownMode
from wenet_runtime.policy import Candidate, Choice, Limits, select
from wenet_runtime.pool import Residency
from wenet_runtime.profile import Profile
from wenet_runtime.slowdown import Slowdown, quantile

OVERHEAD_WINDOW = 128
OVERHEAD_LEAST = 5  # fewer say nothing: the very first reply is slow on every machine


@dataclass(frozen=True)
class _Overhead:
    """What a reply takes after its inference: at the least, in the median, and at the attainment asked for."""

    least_ms: float
    median_ms: float
    bound_ms: float


_NO_OVERHEAD = _Overhead(0.0, 0.0, 0.0)


class Controller:
    """Chooses a mode per request. Clocks are passed in. The server's thread and the engine's may both ask.

    Args:
        modes: the modes that can be served.
        profiles: what each costs on this device, by mode id.
        attainment: probability with which a chosen mode must finish in time.
    """

    def __init__(self, modes: Sequence[Mode], profiles: Mapping[str, Profile], attainment: float = 0.99) -> None:
        self._modes: Dict[str, Mode] = {mode.id: mode for mode in modes}
        self.profiles = dict(profiles)
        # A profile is of one row; a batch's rows cost less each, so every batch size has its own filter.
        self._slowdowns: Dict[int, Slowdown] = {1: Slowdown(attainment)}
        self._attainment = attainment
        self._overheads: Deque[float] = deque(maxlen=OVERHEAD_WINDOW)
        self._overhead = _NO_OVERHEAD

    @property
    def slowdown(self) -> Slowdown:
        """The filter of single rows, which stands for the device."""
        return self._slowdowns[1]

    def _slowdown(self, rows: int) -> Slowdown:
        return self._slowdowns.setdefault(rows, Slowdown(self._attainment))

    def allowed(self, options: RequestOptions, out: Optional[Mapping[str, str]] = None) -> List[Mode]:
        """The modes a request accepts: its pin, and its accuracy floor.

        Args:
            options: the request's.
            out: modes that are out of service, and why.

        Raises:
            UnknownMode: the pinned mode is not served.
            BudgetImpossible: no mode is accurate enough.
        """
        out = out or {}
        modes = [mode for mode in self._modes.values() if mode.id not in out]
        if options.mode is not None:
            if options.mode in out:
                raise UnknownMode(f"mode '{options.mode}' is not served: {out[options.mode]}")
            if options.mode not in self._modes:
                raise UnknownMode(f"no mode '{options.mode}': served are {', '.join(self._modes)}")
            modes = [self._modes[options.mode]]
        floor = options.budget.min_accuracy
        if floor is None:
            return modes
        accurate = [mode for mode in modes if mode.accuracy.value >= floor]
        if not accurate:
            best = max(modes, key=lambda mode: mode.accuracy.value)
            raise BudgetImpossible(
                f"no allowed mode reaches accuracy {floor:g}: the best is {best.id} with {best.accuracy.value:.4f}"
            )
        return accurate

    def candidate(self, mode: Mode, rows: int, *, resident: bool = True) -> Candidate:
        """What a mode is predicted to take now for a batch of `rows`."""
        profile = self.profiles[mode.id]
        slowdown = self._slowdown(rows)
        now_ms = profile.p50_ms * rows * slowdown.factor
        excess_ms = slowdown.excess_ms
        overhead = self._overhead  # replaced as a whole, by another thread
        if excess_ms is None:
            excess_ms = now_ms * (_profile_tail(profile, self._attainment) - 1)
        return Candidate(
            mode_id=mode.id,
            accuracy=mode.accuracy.value,
            median_ms=now_ms + overhead.median_ms,
            bound_ms=now_ms + excess_ms + overhead.bound_ms,
            idle_ms=profile.p50_ms * rows + overhead.least_ms,
            energy_mj=profile.energy_mj,
            resident=resident,
        )

    def choose(
        self,
        options: RequestOptions,
        deadline: Deadline,
        *,
        rows: int,
        now_s: float,
        wait_ms: float = 0,
        residency: Optional[Residency] = None,
    ) -> Choice:
        """Choose a mode for a request.

        Args:
            options: what the request asks for.
            deadline: its clock.
            rows: rows of its batch.
            now_s: the monotonic clock.
            wait_ms: time it will still wait before it can start; 0 once the engine is free.
            residency: which modes are there; all if not given.

        Raises:
            EnergyUnavailable: an energy budget, but no allowed mode's energy is known.
            UnknownMode, BudgetImpossible: see `allowed`.
            BudgetImpossible, InfeasibleBudget, NotResident: see `policy.select`.
        """
        self._slowdown(rows).forget(now_s)
        there = Residency(frozenset(self._modes)) if residency is None else residency
        candidates = [
            self.candidate(mode, rows, resident=mode.id in there.resident) for mode in self.allowed(options, there.out)
        ]
        energy_mj = options.budget.energy_mj
        if energy_mj is not None and all(one.energy_mj is None for one in candidates):
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
        )
        return select(candidates, limits)

    def observe(self, mode_id: str, infer_ms: float, rows: int, now_s: float) -> None:
        """Feed back one inference's measured time."""
        profiled = self.profiles[mode_id].p50_ms * rows
        if profiled > 0 and math.isfinite(infer_ms):
            self._slowdown(rows).observe(infer_ms, profiled, now_s)

    def observe_overhead(self, overhead_ms: float) -> None:
        """Feed back what a reply took after its inference: waking the server, encoding, sending."""
        self._overheads.append(overhead_ms)
        ordered = sorted(self._overheads)
        if len(ordered) >= OVERHEAD_LEAST:
            self._overhead = _Overhead(ordered[0], quantile(ordered, 0.5), quantile(ordered, self._attainment))

    def doubt(self) -> None:
        """Forget what replies took: it led to a refusal, and refusals bring nothing newer to learn from."""
        self._overheads = deque(maxlen=OVERHEAD_WINDOW)
        self._overhead = _NO_OVERHEAD

    def energy_mj(self, mode_id: str) -> Optional[float]:
        """The profiled energy of a mode per row, mJ."""
        return self.profiles[mode_id].energy_mj


def _profile_tail(profile: Profile, attainment: float) -> float:
    """How far the profile's own tail lies over its median, at the percentile next above `attainment`."""
    if profile.p50_ms <= 0:
        return 1.0
    return (profile.p95_ms if attainment <= 0.95 else profile.p99_ms) / profile.p50_ms
