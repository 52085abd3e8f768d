"""The cases of the study: families of arrivals and of disturbances, at stated loads and budgets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.simulator import disturbances, traces
from benchmarks.simulator.device import Device
from benchmarks.simulator.disturbances import Disturbance
from benchmarks.simulator.noise import QUIET, SHARED_CORE, Noise
from benchmarks.simulator.traces import Floats
from benchmarks.simulator.world import World, make_world

Arrivals = Callable[[float, int, np.random.Generator], Floats]

LOADS = (0.3, 0.5, 0.7)
SWING = 0.6
FULL, TIGHT = 1.5, 0.7  # budgets over the full mode's time
MIXED = ((0.7, 1.5, 4.0), (0.5, 0.3, 0.2))  # budgets over the full mode's time, and shares of requests
CLEAR = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
STEP_PERIOD_S = 40.0  # of times whose fastest mode takes 10 ms; longer in proportion on slower devices
BATCH_FIXED, BATCH_MOST = 0.6, 8


def _ramp(rate: float, count: int, random: np.random.Generator) -> Floats:
    return traces.ramp(rate * (1 - SWING), rate * (1 + SWING), count, random)


def _diurnal(rate: float, count: int, random: np.random.Generator) -> Floats:
    return traces.diurnal(rate, SWING, count / rate / 4, count, random)


def _gamma(cv2: float, rate: float, count: int, random: np.random.Generator) -> Floats:
    return traces.gamma(rate, count, cv2, random)


ARRIVALS: Mapping[str, Arrivals] = {
    "Poisson": traces.poisson,
    "gamma CV² 2": partial(_gamma, 2.0),
    "gamma CV² 4": partial(_gamma, 4.0),
    "gamma CV² 8": partial(_gamma, 8.0),
    "ramp": _ramp,
    "diurnal": _diurnal,
}
DISTURBANCES: Mapping[str, Callable[[float, float], Disturbance]] = {
    "steps": disturbances.steps,
    "memory contention": disturbances.contention,
    "thermal sawtooth": disturbances.sawtooth,
    "clock change": partial(disturbances.clock, noticed=False),
    "clock change, noticed": partial(disturbances.clock, noticed=True),
    "meter loss": disturbances.meter_loss,
}


@dataclass(frozen=True)
class Case:
    """One setting of which every seed makes a world.

    Attributes:
        family: what figures are pooled by.
        load: of the smallest mode's capacity.
        budgets: over the full mode's time, and the share of requests that has each.
        budget: how that is called.
        max_batch: rows that may run together.
        bounded: whether the clairvoyant is an upper bound: one budget, no batches.
    """

    family: str
    device: Device
    load: float
    budget: str
    budgets: tuple[tuple[float, ...], tuple[float, ...]]
    arrivals: Arrivals = traces.poisson
    disturbance: Callable[[float, float], Disturbance] | None = None
    noise: Noise = QUIET
    max_batch: int = 1

    @property
    def name(self) -> str:
        """Unique in a study."""
        return f"{self.family}, load {self.load:g}, budget {self.budget}, {self.device.name}"

    @property
    def bounded(self) -> bool:
        """Whether nobody can do better than the clairvoyant."""
        return self.max_batch == 1 and len(self.budgets[0]) == 1

    def world(self, seed: int, count: int) -> World:
        """The world of one seed."""
        random = np.random.default_rng((seed, 0))
        device = self.device
        arrivals_s = self.arrivals(device.rate(self.load), count, random)
        budgets_ms = [one * device.full_ms for one in self.budgets[0]]
        trace = (
            traces.with_budget(arrivals_s, budgets_ms[0])
            if len(budgets_ms) == 1
            else traces.with_budgets(arrivals_s, budgets_ms, self.budgets[1], random)
        )
        period_s = STEP_PERIOD_S * device.fastest_ms / 10
        suffered = self.disturbance(float(arrivals_s[-1]) + 60, period_s) if self.disturbance else disturbances.none()
        return make_world(device, trace, suffered, self.noise, seed)

    def with_budget(self, over_full: float, called: str) -> "Case":
        """The same with one budget for all."""
        return replace(self, budgets=((over_full,), (1.0,)), budget=called)


def cases(device: Device, loads: Sequence[float] = LOADS, *, tight: bool = True) -> list[Case]:
    """Everything but the clear budgets, which have to be looked for."""
    found = []
    for load in loads:
        plain = Case("", device, load, f"{FULL:g} x full", ((FULL,), (1.0,)))
        for family, arrivals in ARRIVALS.items():
            one = replace(plain, family=family, arrivals=arrivals)
            found.append(one)
            if tight:
                found.append(one.with_budget(TIGHT, f"{TIGHT:g} x full"))
        found.append(replace(plain, family="mixed budgets", budgets=MIXED, budget="mixed"))
        if load > 0.5:  # twice as slow, nothing could hold it
            found.append(
                replace(
                    plain, family="batches", device=replace(device, fixed_share=BATCH_FIXED), max_batch=BATCH_MOST,
                    arrivals=ARRIVALS["gamma CV² 4"], load=1.0,
                )
            )  # fmt: skip
            continue
        found.append(replace(plain, family="shared core", noise=SHARED_CORE))
        found += [
            replace(plain, family=family, disturbance=disturbance) for family, disturbance in DISTURBANCES.items()
        ]
    return found


def arrival_cases(device: Device, loads: Sequence[float] = LOADS) -> list[Case]:
    """The quiet families, to look for clear budgets in."""
    return [
        Case(family, device, load, "", ((FULL,), (1.0,)), arrivals)
        for load in loads
        for family, arrivals in ARRIVALS.items()
    ]
