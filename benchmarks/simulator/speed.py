"""How long our decisions take, and how quickly a simulation runs."""

import time
from collections.abc import Mapping

import numpy as np

from benchmarks.simulator import disturbances, traces
from benchmarks.simulator.device import Device, many, measured
from benchmarks.simulator.noise import QUIET, profiles
from benchmarks.simulator.players import ATTAINMENT
from benchmarks.simulator.players.base import Given, Player, Setup
from benchmarks.simulator.players.ours import Ours
from benchmarks.simulator.players.static import Static
from benchmarks.simulator.world import World, make_world, play

MODES, LOAD, CV2 = 32, 0.7, 4.0
PASSES = 3
WARM_UP = 0.1  # share of the first decisions that is not counted


class Timed:
    """A player with a stopwatch on each of its three decisions; nanoseconds of this thread's processor time.

    Not of the wall: a decision that loses its core to another process is not slower to make.
    """

    def __init__(self, player: Player) -> None:
        self._player = player
        self.taken_ns: Mapping[str, list[int]] = {"submit": [], "next": [], "finished": []}

    def arrive(self, index: int, now_s: float, budget_ms: float, rows: int) -> bool:
        """Timed as `submit`."""
        start = time.thread_time_ns()
        accepted = self._player.arrive(index, now_s, budget_ms, rows)
        self.taken_ns["submit"].append(time.thread_time_ns() - start)
        return accepted

    def next(self, now_s: float) -> Given:
        """Timed as `next`, where something was given."""
        start = time.thread_time_ns()
        given = self._player.next(now_s)
        taken = time.thread_time_ns() - start
        if given is not None:
            self.taken_ns["next"].append(taken)
        return given

    def finished(
        self, indexes: tuple[int, ...], mode: int, start_s: float, end_s: float, energy_mj: float | None
    ) -> None:
        """Timed as `finished`."""
        start = time.thread_time_ns()
        self._player.finished(indexes, mode, start_s, end_s, energy_mj)
        self.taken_ns["finished"].append(time.thread_time_ns() - start)

    def clock_changed(self, by: float, now_s: float) -> None:
        """Passed on."""
        self._player.clock_changed(by, now_s)


def decision_us(count: int, seed: int) -> dict[str, dict[str, float]]:
    """Percentiles of each decision of ours with 32 modes over so many requests, in microseconds.

    The least of a few passes: other work on the machine only adds.
    """
    device = many(MODES)
    setup = Setup(device, profiles(device, QUIET))
    found: dict[str, dict[str, float]] = {}
    for _ in range(PASSES):
        timed = Timed(Ours(setup, ATTAINMENT))
        play(_world(device, count, seed), timed)
        for name, taken in timed.taken_ns.items():
            counted = np.array(taken[int(len(taken) * WARM_UP) :]) / 1e3
            before = found.setdefault(name, {})
            for percent in (50, 99):
                least = float(np.percentile(counted, percent))
                before[f"p{percent}"] = min(before.get(f"p{percent}", least), least)
    return found


def seconds(count: int, seed: int) -> dict[str, float]:
    """How long so many requests take to simulate by the wall, drawing them included: the simplest player, and ours."""
    device = measured()
    setup = Setup(device, profiles(device, QUIET))
    found = {}
    for name, player in (("simplest", Static(0)), ("ours", Ours(setup, ATTAINMENT))):
        start = time.perf_counter()
        play(_world(device, count, seed), player)
        found[name] = time.perf_counter() - start
    return found


def _world(device: Device, count: int, seed: int) -> World:
    random = np.random.default_rng((seed, 3))
    arrivals_s = traces.gamma(device.rate(LOAD), count, CV2, random)
    return make_world(device, traces.with_budget(arrivals_s, 1.5 * device.full_ms), disturbances.none(), QUIET, seed)
