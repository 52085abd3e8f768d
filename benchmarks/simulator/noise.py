"""What one run takes beside its mode's median: jitter and stalls, the same for every player."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.device import Device
from wenet_runtime.profile import Profile, profile_of

Floats = NDArray[np.float64]
PROFILE_RUNS = 20_000
BATCHES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Noise:
    """The shape of what is random in a run's time.

    Attributes:
        jitter: standard deviation of the logarithm of a factor on the median.
        stall_share: share of runs that lose the core to another process for a while.
        stall_ms: the mean of what they lose, exponentially distributed, as long for a quick mode as for a slow one.
    """

    jitter: float
    stall_share: float
    stall_ms: float

    def draw(self, count: int, random: np.random.Generator) -> tuple[Floats, Floats]:
        """So many runs: (count,) factors and (count,) milliseconds on top."""
        factors = np.exp(random.normal(0.0, self.jitter, count))
        stalls = np.where(random.random(count) < self.stall_share, random.exponential(self.stall_ms, count), 0.0)
        return factors, stalls


# 2000 runs of ResNet-50's smallest mode (13 ms) on two cores that other jobs used too: half of them lay within ±4 %
# of the median, 7.5 % took over 1.15 times as long and lost 8 ms on average. With little else running, 0.5 % did.
QUIET = Noise(jitter=0.05, stall_share=0.005, stall_ms=8.0)
SHARED_CORE = Noise(jitter=0.05, stall_share=0.075, stall_ms=8.0)
STILL = Noise(jitter=0.0, stall_share=0.0, stall_ms=0.0)


def profiles(device: Device, noise: Noise, seed: int = 0, batches: Sequence[int] = BATCHES) -> dict[str, Profile]:
    """What a profiler would have measured on the quiet device; energy is the whole board's."""
    factors, stalls = noise.draw(PROFILE_RUNS, np.random.default_rng((seed, 1)))
    found = {}
    for number, mode in enumerate(device.modes):
        taken = profile_of(mode.p50_ms * factors + stalls, [mode.p50_ms * (device.above_idle_w + device.idle_w)], "sim")
        batch_ms = {rows: device.batch_ms(number, rows) for rows in batches} if device.fixed_share else None
        found[mode.id] = Profile(
            taken.p50_ms, taken.p95_ms, taken.p99_ms, taken.runs, taken.energy_mj, "sim", None, batch_ms
        )
    return found
