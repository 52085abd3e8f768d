"""SlackFit, the policy of SuperServe (NSDI 2025): the slack of the earliest deadline picks a bucket of latencies.

Offline, the latencies of all (mode, batch) are cut into buckets of equal width; each keeps its largest batch, and of
those the most accurate mode. Online, the bucket just below the slack is taken. It refuses nothing and does not learn;
its latencies are the profile's 99th percentiles, which spares it misses that its paper's devices would not have shown.
"""

from dataclasses import dataclass

from benchmarks.simulator.players.base import Given, Setup, Waiting

BUCKETS = 32


@dataclass(frozen=True)
class Pick:
    """What a bucket runs."""

    latency_ms: float
    rows: int
    accuracy: float
    mode: int


def buckets(picks: list[Pick], count: int) -> tuple[float, float, list[Pick]]:
    """Lowest latency, width, and for each upper edge low + k · width (k = 0 … count) the pick just below it."""
    low = min(pick.latency_ms for pick in picks)
    width = (max(pick.latency_ms for pick in picks) - low) / count
    found: list[Pick] = []
    for number in range(count + 1):
        edge = low + number * width * (1 + 1e-12)
        inside = [pick for pick in picks if edge - width < pick.latency_ms <= edge]
        best = max(inside, key=lambda pick: (pick.rows, pick.accuracy), default=None)
        found.append(best if best is not None else found[-1])
    return low, width, found


class SlackFit:
    """The policy on one engine."""

    def __init__(self, setup: Setup, count: int = BUCKETS) -> None:
        tails = [profile.p99_ms / profile.p50_ms for profile in setup.in_order]
        sizes = [2**power for power in range(setup.max_batch.bit_length())]
        picks = [
            Pick(setup.device.batch_ms(mode, rows) * tails[mode], rows, setup.accuracies[mode], mode)
            for mode in range(len(setup.device.modes))
            for rows in sizes
        ]
        self._low_ms, self._width_ms, self._buckets = buckets(picks, count)
        self._waiting = Waiting()

    def pick(self, slack_ms: float) -> Pick:
        """The bucket just below the slack; the lowest where even that is not met."""
        if self._width_ms <= 0:
            return self._buckets[0]
        number = int((slack_ms - self._low_ms) / self._width_ms)
        return self._buckets[min(max(number, 0), len(self._buckets) - 1)]

    def arrive(self, index: int, now_s: float, budget_ms: float, rows: int) -> bool:
        """Accepts everything."""
        self._waiting.add(index, now_s, budget_ms, rows)
        return True

    def next(self, now_s: float) -> Given:
        """The earliest deadline, with as many of the next ones as the bucket's batch holds."""
        first = self._waiting.first(now_s)
        if first is None:
            return None
        pick = self.pick((first[0] - now_s) * 1e3)
        return self._waiting.take_rows(pick.rows), pick.mode

    def finished(
        self, indexes: tuple[int, ...], mode: int, start_s: float, end_s: float, energy_mj: float | None
    ) -> None:
        """Learns nothing."""

    def clock_changed(self, by: float, now_s: float) -> None:
        """Does not listen."""
