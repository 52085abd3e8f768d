"""Does the scheduler's memory stay flat? Ten million requests, one scheduler; `python -m benchmarks.simulator.soak`."""

import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import Arguments, Measured, at_most, reported, run
from benchmarks.simulator import disturbances, traces
from benchmarks.simulator.device import measured
from benchmarks.simulator.noise import QUIET, profiles
from benchmarks.simulator.players import ATTAINMENT
from benchmarks.simulator.players.base import Setup
from benchmarks.simulator.players.ours import Ours
from benchmarks.simulator.world import make_world, play

QUESTION = "Does the scheduler's memory stay flat over ten million requests?"
PARTS, PART, QUICK_PART = 20, 500_000, 2_000
LOAD, CV2 = 0.7, 4.0
GROWTH_MB = 1.0


def measure(arguments: Arguments) -> Measured:
    """Parts of one long trace, one after the other, all played by the same scheduler."""
    device = measured()
    player = Ours(Setup(device, profiles(device, QUIET)), ATTAINMENT)
    count = QUICK_PART if arguments.quick else PART
    random = np.random.default_rng((arguments.seed, 4))
    at_s, resident, taken = 0.0, [], []
    for part in range(PARTS):
        start = time.perf_counter()
        # Budgets vary, so that whatever is kept per budget shows.
        arrivals_s = at_s + traces.gamma(device.rate(LOAD), count, CV2, random)
        budgets_ms = device.full_ms * random.uniform(0.5, 4.0, count)
        trace = traces.Trace(arrivals_s, budgets_ms, np.ones(count, dtype=np.int64))
        quiet = disturbances.none()
        slowed = replace(quiet, compute=quiet.compute * (1 + part % 3 / 4), memory=quiet.memory * (1 + part % 2 / 4))
        at_s = play(make_world(device, trace, slowed, QUIET, part), player).span_s
        taken.append(time.perf_counter() - start)
        del trace, arrivals_s, budgets_ms
        resident.append(resident_mb())
    settled = resident[PARTS // 4]  # the first parts fill windows and tables
    growth = resident[-1] - settled
    how = f"resident memory after {PARTS * count} requests, less that after {(PARTS // 4 + 1) * count}"
    return {
        "memory growth": reported(growth, "MB", how) if arguments.quick else at_most(growth, GROWTH_MB, "MB", how),
        "memory": reported(resident[-1], "MB", "resident at the end, the simulator's own arrays included"),
        "time": reported(sum(taken) / (PARTS * count) * 1e6, "µs", "per request, simulator included"),
    }, {"resident_mb": resident, "seconds": taken, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def resident_mb() -> float:
    """This process's resident memory, MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    run("simulator.soak", QUESTION, measure, needs_bundle=False)
