"""The device that is simulated: what its modes take when nothing disturbs it, and how they share its bottlenecks."""

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import ROOT
from wenet_runtime.bundle import Accuracy, Mode

# The paper's ResNet-50 with channel shuffle (Table II): groups → top-1 accuracy, ms on a Jetson Nano under PyTorch.
TABLE_II = {16: (0.6424, 43.41), 8: (0.7043, 85.62), 4: (0.7407, 127.35), 2: (0.7563, 132.17), 1: (0.7607, 203.38)}
MACS = {16: 370_000_000, 8: 620_000_000, 4: 1_110_000_000, 2: 2_110_000_000, 1: 4_090_000_000}
# How much of a mode's slowdown is memory's: assumed. More groups do less arithmetic with each number they read.
MEMORY_SHARE = {16: 1.0, 8: 0.85, 4: 0.6, 2: 0.3, 1: 0.0}
# A Jetson Nano's board, from recorded lines: 5.18 W with the GPU busy, 0.9 W idle.
ABOVE_IDLE_W, IDLE_W = 4.28, 0.9
MEASURED = ROOT / "benchmarks/results/table_error.json"


@dataclass(frozen=True)
class SimulatedMode:
    """One mode: its accuracy (0–1), its median time for one row on the quiet device, and its kind.

    `memory_share` is 0 where only arithmetic slows it down, 1 where only memory does.
    """

    id: str
    accuracy: float
    p50_ms: float
    macs: int
    memory_share: float


@dataclass(frozen=True)
class Device:
    """A device under simulation.

    Attributes:
        name: stands in figures.
        source: where times and accuracies are from.
        modes: the fastest first.
        fixed_share: share of one row's time that a batch pays only once; 0 where batches save nothing.
        above_idle_w, idle_w: power of a run above idle, and at idle.
    """

    name: str
    source: str
    modes: tuple[SimulatedMode, ...]
    fixed_share: float = 0.0
    above_idle_w: float = ABOVE_IDLE_W
    idle_w: float = IDLE_W

    @property
    def fastest_ms(self) -> float:
        """The smallest mode's time: its inverse is the capacity that loads are stated against."""
        return self.modes[0].p50_ms

    @property
    def full_ms(self) -> float:
        """The largest mode's time."""
        return self.modes[-1].p50_ms

    def rate(self, load: float) -> float:
        """Single rows a second at this share of the smallest mode's capacity."""
        return load * 1e3 / self.fastest_ms

    def batch_ms(self, mode: int, rows: int) -> float:
        """The median time of a whole batch on the quiet device."""
        return self.modes[mode].p50_ms * (self.fixed_share + (1 - self.fixed_share) * rows)

    def bundle_modes(self) -> list[Mode]:
        """The modes as the runtime knows them."""
        return [
            Mode(one.id, {}, "fp32", Accuracy(one.accuracy, one.accuracy, one.accuracy, 50_000), one.macs, 0, "stated")
            for one in self.modes
        ]


def paper() -> Device:
    """The paper's board."""
    return Device(
        "paper", "times and accuracies of the paper's Table II: ResNet-50 with shuffle, Jetson Nano, PyTorch",
        tuple(_mode(groups, ms) for groups, (_, ms) in TABLE_II.items()),
    )  # fmt: skip


def measured(path: Path = MEASURED) -> Device:
    """ResNet-50's uniform modes as `benchmarks.table_error` measured them; accuracies are the paper's.

    Raises:
        ValueError: the file holds no such measurement.
    """
    try:
        found = json.loads(path.read_text())
        samples = found["samples"]["resnet50"]
        times = [float(samples["full_ms"])] + [float(one["measured_ms"]) for one in samples["uniform"]]
        processor = found["machine"]["processor"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no times of ResNet-50 ({error!r}): "
            "run `python -m benchmarks.table_error --out benchmarks/results/table_error.json`"
        ) from None
    levels = (1, 2, 4, 8, 16)
    if len(times) != len(levels):
        raise ValueError(f"{path} has {len(times)} uniform modes, {len(levels)} were expected: measure again")
    timed = sorted(zip(levels, times, strict=True), key=lambda one: one[1])
    return Device(
        "measured", f"times measured on {processor}, one thread (table_error.json); accuracies of the paper's Table II",
        tuple(_mode(groups, ms) for groups, ms in timed),
    )  # fmt: skip


def many(count: int) -> Device:
    """So many made-up modes, to time decisions."""
    steps = [number / (count - 1) for number in range(count)]
    modes = [
        SimulatedMode(f"m{number}", 0.6 + 0.16 * step, 10 + 90 * step, int(4e8 + 4e9 * step), 1 - step)
        for number, step in enumerate(steps)
    ]
    return Device(f"{count} modes", "made up", tuple(modes))


def _mode(groups: int, ms: float) -> SimulatedMode:
    return SimulatedMode(f"g{groups}", TABLE_II[groups][0], ms, MACS[groups], MEMORY_SHARE[groups])
