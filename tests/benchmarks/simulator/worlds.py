"""Small worlds without noise, for tests that follow them by hand."""

import numpy as np

from benchmarks.simulator import disturbances, traces
from benchmarks.simulator.device import Device, SimulatedMode
from benchmarks.simulator.noise import STILL, profiles
from benchmarks.simulator.players.base import Setup
from benchmarks.simulator.world import World, make_world

TWO = Device("two", "made up", (SimulatedMode("small", 0.6, 10, 10, 1.0), SimulatedMode("large", 0.8, 30, 60, 0.0)))


def world(arrivals_s, budget_ms, *, device=TWO, disturbance=None, rows=None, budgets_ms=None):
    count = len(arrivals_s)
    trace = traces.Trace(
        np.array(arrivals_s, dtype=float),
        np.full(count, float(budget_ms)) if budgets_ms is None else np.array(budgets_ms, dtype=float),
        np.ones(count, dtype=np.int64) if rows is None else np.array(rows, dtype=np.int64),
    )
    return make_world(device, trace, disturbance or disturbances.none(), STILL, 0)


def setup(device=TWO, max_batch=1):
    return Setup(device, profiles(device, STILL), max_batch)


def jittered(base: World, random) -> World:
    return World(base.device, base.trace, base.disturbance, random.uniform(0.8, 1.3, base.jitter.shape), base.stalls_ms)


class Scripted:
    """Plays what it is told: for each request in order of arrival a mode, or None to refuse it."""

    def __init__(self, modes):
        self.modes, self.queue, self.seen = list(modes), [], []

    def arrive(self, index, now_s, budget_ms, rows):
        self.seen.append(("arrive", index, now_s))
        if self.modes[index] is None:
            return False
        self.queue.append(index)
        return True

    def next(self, now_s):
        if not self.queue:
            return None
        index = self.queue.pop(0)
        return (index,), self.modes[index]

    def finished(self, indexes, mode, start_s, end_s, energy_mj):
        self.seen.append(("finished", indexes[0], round(start_s, 9), round(end_s, 9), energy_mj))

    def clock_changed(self, by, now_s):
        self.seen.append(("clock", by, now_s))
