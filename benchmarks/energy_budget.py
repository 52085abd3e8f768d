"""Does an average power hold, and a battery last, and how much energy is that above a clairvoyant plan? Simulated.

The ledger is the runtime's own (`wenet_runtime.power_budget`); board, arrivals and meter are simulated
(`energy_world`): Table II's times, a shape of watts. What a mode truly takes is 0.8–1.25 times its profile, drawn
per mode and run; the meter is off by 5 %.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.common import Arguments, Figure, Measured, at_least, at_most, reported, run
from benchmarks.energy_world import (
    IDLE_W,
    Run,
    arrivals,
    budget_w,
    draw_bias,
    least_mj,
    modes,
    no_meter,
    noisy,
    oracle_mj,
    serve,
    traces,
    true_points,
)  # fmt: skip
from wenet_runtime.energy_plan import HullPoint
from wenet_runtime.power_budget import PowerBudget

QUESTION = "Does an average power hold, does a battery last, and what does that cost above a clairvoyant plan?"
WINDOW_S = 60.0
SETTLE_S = 120.0  # before the first window that is judged: nothing is known of rate and bias before


@dataclass(frozen=True)
class Kept:
    """How one run kept its average power. Shares of the budget, energies above idle unless said otherwise.

    Attributes:
        errors: of each window where the budget binds, spent over budget − 1, whole board.
        over: the most of any window, also of those that begin at any second.
        above_oracle: whole board's energy over that of an oracle as accurate that holds the same windows, − 1.
        above_oracle_busy: the same without idle.
        above_least: whole board's energy over the least for that accuracy, held to no window, − 1.
    """

    errors: Sequence[float]
    over: float
    above_oracle: float
    above_oracle_busy: float
    above_least: float


def judge(done: Run, hull: Sequence[HullPoint], power_w: float) -> Kept:
    """Compare with the budget and with the oracle."""
    end_s = done.arrived[-1]
    edges = np.arange(SETTLE_S, end_s, WINDOW_S)
    above = done.above_in(edges)
    rows = np.histogram(done.arrived, edges)[0].astype(float)
    whole_mj, idle_mj = power_w * WINDOW_S * 1e3, IDLE_W * WINDOW_S * 1e3
    net_mj = whole_mj - idle_mj
    binds = (rows * hull[-1].energy_mj > net_mj) & (rows * hull[0].energy_mj <= net_mj)
    errors = (above + idle_mj) / whole_mj - 1.0
    seconds = np.arange(SETTLE_S, end_s - WINDOW_S)
    starts = np.append(seconds, seconds[-1] + np.arange(1, WINDOW_S + 1))
    running = np.append(0.0, np.cumsum(done.above_in(starts)))
    sliding = (running[int(WINDOW_S) :] - running[: -int(WINDOW_S)] + idle_mj) / whole_mj - 1.0
    # Of the rows that began in the judged time, as what they took is what the windows hold.
    inside = (done.began >= edges[0]) & (done.began < edges[-1])
    served = np.histogram(done.began, edges)[0].astype(float)
    taken = float(done.above_mj[inside].sum())
    accuracy = float(done.accuracy[inside].mean())
    bound = oracle_mj(hull, served, np.full_like(served, net_mj), accuracy)
    least = least_mj(hull, float(served.sum()), accuracy)
    idle = idle_mj * len(served)
    return Kept(
        errors[binds].tolist(),
        float(max(errors.max(), sliding.max())),
        (taken + idle) / (bound + idle) - 1.0,
        taken / bound - 1.0,
        (taken + idle) / (least + idle) - 1.0,
    )


def tracked(
    name: str, length_s: float, seeds: Sequence[int], meter: Callable[[random.Random], Callable[[float], float | None]]
) -> list[Kept]:
    """One trace, once per seed, each with another board and other arrivals."""
    offered = modes()
    rate, squared_cv = traces(length_s)[name]
    found = []
    for seed in seeds:
        rng = random.Random(f"{name}{seed}")
        bias = draw_bias(offered, rng)
        times = arrivals(rate, length_s, squared_cv, rng)
        budget = PowerBudget(budget_w(offered), WINDOW_S, IDLE_W)
        done = serve(budget, offered, bias, times, meter(rng))
        found.append(judge(done, true_points(offered, bias), budget_w(offered)))
    return found


@dataclass(frozen=True)
class Drained:
    """How a battery did: Wh of it and Wh left, and energy above the oracle's, whole board."""

    battery_wh: float
    left_wh: float
    above_oracle: float

    @property
    def used(self) -> float:
        """The share that was used."""
        return 1.0 - self.left_wh / self.battery_wh


def drained(name: str, length_s: float, seeds: Sequence[int], days: int = 4) -> list[Drained]:
    """A battery that holds what the same average power takes in all, over so many short days."""
    offered = modes()
    rate, squared_cv = traces(length_s / days)[name]
    found = []
    for seed in seeds:
        rng = random.Random(f"battery{name}{seed}")
        bias = draw_bias(offered, rng)
        times = arrivals(rate, length_s, squared_cv, rng)
        energy_wh = budget_w(offered) * length_s / 3600.0
        budget = PowerBudget.battery(energy_wh, length_s / 3600.0, IDLE_W, 0.0)
        done = serve(budget, offered, bias, times, noisy(rng))
        end_s = max(length_s, float(done.ended[-1]))
        idle_mj = IDLE_W * end_s * 1e3
        taken = float(done.above_mj.sum())
        hull = true_points(offered, bias)
        least = least_mj(hull, len(times), float(done.accuracy.mean()))
        left_wh = energy_wh - (taken + idle_mj) / 3.6e6
        found.append(Drained(energy_wh, left_wh, (taken + idle_mj) / (least + idle_mj) - 1.0))
    return found


def measure(arguments: Arguments) -> Measured:
    """All traces, then the batteries."""
    length_s = 1200.0 if arguments.quick else 7200.0
    seeds = range(arguments.seed, arguments.seed + (2 if arguments.quick else 10))
    figures: dict[str, Figure] = {}
    samples: dict[str, object] = {}
    for name in traces(length_s):
        kept = tracked(name, length_s, seeds, noisy)
        figures.update(_tracking(name, kept))
        samples[name] = [[round(error, 5) for error in one.errors] for one in kept]
    blind = [abs(error) for one in tracked("poisson", length_s, seeds, lambda _: no_meter) for error in one.errors]
    how = "simulated; without a meter only the profile is known, and it is wrong by up to 1.25 times"
    figures["poisson_no_meter_error_mean"] = reported(100 * float(np.mean(blind)), "%", how)
    for name in traces(length_s):
        figures.update(_battery(name, drained(name, 2 * length_s, seeds)))
    one_day = drained("diurnal", 2 * length_s, seeds, days=1)
    how = "simulated; the hours are one day from midnight on, whose noon and evening nobody foretold"
    figures["battery_one_day_least_left"] = at_least(min(one.left_wh for one in one_day), 0.0, "Wh", how)
    figures["battery_one_day_used"] = reported(100 * min(one.used for one in one_day), "%", how)
    figures["battery_one_day_above_oracle"] = reported(
        100 * float(np.mean([one.above_oracle for one in one_day])), "%", how
    )
    return figures, samples


def _tracking(name: str, kept: Sequence[Kept]) -> Iterator[tuple[str, Figure]]:
    errors = np.array([abs(error) for one in kept for error in one.errors])
    how = f"simulated; |spent ÷ budget − 1|, whole board, of {len(errors)} windows of 60 s in which the budget binds"
    yield f"{name}_error_mean", at_most(100 * float(errors.mean()), 3.0, "%", how)
    for label, share in (("median", 0.5), ("p95", 0.95), ("max", 1.0)):
        yield f"{name}_error_{label}", reported(100 * float(np.quantile(errors, share)), "%", how)
    most = 100 * max(one.over for one in kept)
    yield f"{name}_most_over", at_most(most, 10.0, "%", "simulated; the worst window of 60 s, from any second on")
    how = (
        "simulated; whole board's energy above a clairvoyant linear programme's, equal accuracy, no window over budget"
    )
    above = 100 * float(np.mean([one.above_oracle for one in kept]))
    yield f"{name}_above_oracle", at_most(above, 5.0, "%", how)
    busy = 100 * float(np.mean([one.above_oracle_busy for one in kept]))
    yield f"{name}_above_oracle_busy", reported(busy, "%", "the same without idle watts")
    least = 100 * float(np.mean([one.above_least for one in kept]))
    yield (
        f"{name}_above_least",
        reported(least, "%", "whole board's, above the least for that accuracy, held to no window"),
    )


def _battery(name: str, found: Sequence[Drained]) -> Iterator[tuple[str, Figure]]:
    left = min(one.left_wh for one in found)
    yield (
        f"battery_{name}_least_left",
        at_least(left, 0.0, "Wh", "simulated; at the end of the hours, worst of the runs"),
    )
    used = 100 * min(one.used for one in found)
    yield f"battery_{name}_used", at_least(used, 97.0, "%", "simulated; of the battery, worst of the runs; it binds")
    above = 100 * float(np.mean([one.above_oracle for one in found]))
    how = "simulated; whole board's energy above a clairvoyant linear programme's over all hours, equal accuracy"
    yield f"battery_{name}_above_oracle", at_most(above, 5.0, "%", how)


if __name__ == "__main__":
    run("energy_budget", QUESTION, measure, needs_bundle=False)
