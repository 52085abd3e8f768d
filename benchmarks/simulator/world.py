"""The event loop: one engine, one trace, one disturbance; a player decides, the world says what came of it.

The world is the same for every player: the noise of a run is drawn per request and mode beforehand.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.device import Device
from benchmarks.simulator.disturbances import Disturbance
from benchmarks.simulator.noise import Noise
from benchmarks.simulator.players.base import Player
from benchmarks.simulator.traces import Floats, Trace

IN_TIME, LATE, REFUSED, EXPIRED = range(4)


@dataclass(frozen=True)
class World:
    """Everything that does not depend on the player.

    Attributes:
        jitter: (modes, requests) factors on the median.
        stalls_ms: (requests,) on top of that.
    """

    device: Device
    trace: Trace
    disturbance: Disturbance
    jitter: Floats
    stalls_ms: Floats

    def service_ms(self, mode: int) -> Floats:
        """(requests,) what single requests take with this mode, but for the slowdown."""
        alone: Floats = self.device.modes[mode].p50_ms * self.jitter[mode]
        return alone


@dataclass(frozen=True)
class Played:
    """What came of every request, arrays (requests,), and of the whole.

    Attributes:
        outcome: IN_TIME, LATE, REFUSED (never accepted) or EXPIRED (accepted, never run).
        mode: that ran; -1 if none.
        latency_ms: from the arrival to the end of its run; infinite if none.
        energy_mj: of all runs, above idle.
        busy_s: time the engine ran.
        span_s: from 0 to the last event.
        switches: runs of another mode than the run before.
        runs: batches.
    """

    outcome: NDArray[np.int8]
    mode: NDArray[np.int8]
    latency_ms: Floats
    energy_mj: float
    busy_s: float
    span_s: float
    switches: int
    runs: int


def make_world(device: Device, trace: Trace, disturbance: Disturbance, noise: Noise, seed: int) -> World:
    """Draw the noise of every request under every mode."""
    random = np.random.default_rng((seed, 2))
    jitter = np.empty((len(device.modes), len(trace)))
    for mode in range(len(device.modes)):
        jitter[mode], stalls_ms = noise.draw(len(trace), random)
    return World(device, trace, disturbance, jitter, stalls_ms)


def play(world: World, player: Player) -> Played:
    """Run the whole trace.

    Raises:
        ValueError: the player gave no request or one that does not wait, or asked to be woken in the past.
    """
    trace, device, disturbance = world.trace, world.device, world.disturbance
    count = len(trace)
    # Memory views give plain floats much quicker than arrays do.
    arrivals, budgets = trace.arrivals_s.data, trace.budgets_ms.data
    rows_of, stalls = trace.rows.data, world.stalls_ms.data
    jitter = [one.data for one in world.jitter]
    alone_ms = [mode.p50_ms for mode in device.modes]
    slowed = [disturbance.factors(mode.memory_share).tolist() for mode in device.modes]
    ends = [*disturbance.starts_s[1:].tolist(), math.inf]
    metered = disturbance.metered.tolist()
    notices = [*disturbance.notices, (math.inf, 1.0)]
    power = device.above_idle_w
    outcome = np.full(count, REFUSED, dtype=np.int8)
    mode_of = np.full(count, -1, dtype=np.int8)
    latency = np.full(count, math.inf)
    outcomes, modes, latencies = outcome.data, mode_of.data, latency.data
    arrive, ask, finished = player.arrive, player.next, player.finished

    at = piece = noticed = runs = switches = 0
    last_mode = -1
    now = busy_s = energy_mj = 0.0
    arrival = arrivals[0] if count else math.inf
    while True:
        while arrival <= now:
            if arrive(at, arrival, budgets[at], rows_of[at]):
                outcomes[at] = EXPIRED  # until it has run
            at += 1
            arrival = arrivals[at] if at < count else math.inf
        while notices[noticed][0] <= now:
            player.clock_changed(notices[noticed][1], now)
            noticed += 1
        given = ask(now)
        if given is None:
            if at == count:
                break
            now = arrival
            continue
        if isinstance(given, float):
            if not now < given < math.inf:
                raise ValueError(f"at {now} s the player asked to be woken at {given} s: give a later instant")
            now = given if given < arrival else arrival
            continue
        indexes, mode = given
        first = indexes[0]
        while ends[piece] <= now:
            piece += 1
        rows = rows_of[first] if len(indexes) == 1 else sum(rows_of[index] for index in indexes)
        median_ms = alone_ms[mode] if rows == 1 else device.batch_ms(mode, rows)
        run_s = (median_ms * jitter[mode][first] * slowed[mode][piece] + stalls[first]) / 1e3
        end = now + run_s
        while arrival < end:
            if arrive(at, arrival, budgets[at], rows_of[at]):
                outcomes[at] = EXPIRED
            at += 1
            arrival = arrivals[at] if at < count else math.inf
        used_mj = power * run_s * 1e3
        finished(indexes, mode, now, end, used_mj if metered[piece] else None)
        for index in indexes:
            if modes[index] >= 0 or outcomes[index] != EXPIRED:
                raise ValueError(f"the player ran request {index}, which does not wait: it ran before or was refused")
            took_ms = (end - arrivals[index]) * 1e3
            latencies[index] = took_ms
            modes[index] = mode
            outcomes[index] = IN_TIME if took_ms <= budgets[index] else LATE
        runs += 1
        switches += mode != last_mode
        last_mode = mode
        busy_s += run_s
        energy_mj += used_mj
        now = end
    return Played(outcome, mode_of, latency, energy_mj, busy_s, now, max(0, switches - 1), runs)
