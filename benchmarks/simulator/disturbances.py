"""What the device suffers over time: factors on compute and on memory, notices of its clocks, and a meter that fails.

Every disturbance is piecewise constant, which lets the oracle bound it exactly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SAWTOOTH_PIECES = 40


@dataclass(frozen=True)
class Disturbance:
    """Factors from each `starts_s` on, arrays (pieces,); the first begins at 0.

    Attributes:
        compute, memory: how much slower work bound by arithmetic and by memory runs.
        metered: whether the meter answers.
        worse_s: instants at which the device suddenly becomes slower, to judge recovery at.
        notices: instants at which the device tells that its clock has changed, and how many times as fast it runs.
    """

    name: str
    starts_s: Floats
    compute: Floats
    memory: Floats
    metered: NDArray[np.bool_]
    worse_s: tuple[float, ...] = ()
    notices: tuple[tuple[float, float], ...] = ()

    def slowdown(self, at_s: Floats, memory_share: float) -> Floats:
        """How much slower a mode of this kind runs when it starts at these instants."""
        return self.factors(memory_share)[self.piece(at_s)]

    def factors(self, memory_share: float) -> Floats:
        """The slowdown of a mode of this kind in every piece."""
        return self.compute + memory_share * (self.memory - self.compute)

    def piece(self, at_s: Floats) -> NDArray[np.intp]:
        """The piece that holds at these instants."""
        return np.searchsorted(self.starts_s, at_s, side="right") - 1


def none() -> Disturbance:
    """A quiet device."""
    return _made("none", [0.0], [1.0], [1.0])


def steps(duration_s: float, period_s: float, factors: tuple[float, ...] = (1.5, 1.75, 2.0)) -> Disturbance:
    """Everything slower by one of `factors` in turn, half of each period."""
    starts, compute = _on_and_off(duration_s, period_s, factors)
    return _made("steps", starts, compute, compute, worse=starts[1::2])


def contention(duration_s: float, period_s: float, compute: float = 1.2, memory: float = 1.8) -> Disturbance:
    """Another process takes memory bandwidth half of each period: grouped modes suffer more."""
    starts, on = _on_and_off(duration_s, period_s, (1.0,))
    half = [index % 2 == 1 for index in range(len(on))]
    return _made(
        "memory contention", starts, [compute if one else 1.0 for one in half],
        [memory if one else 1.0 for one in half], worse=starts[1::2],
    )  # fmt: skip


def sawtooth(duration_s: float, period_s: float, peak: float = 1.8) -> Disturbance:
    """Heat: clocks sink in small steps down to 1/peak, then the device has cooled and recovers at once."""
    pieces = max(1, int(np.ceil(duration_s / period_s)) * SAWTOOTH_PIECES)
    place = np.arange(pieces) % SAWTOOTH_PIECES / SAWTOOTH_PIECES
    factor = 1 + (peak - 1) * place
    # Memory keeps its clock when the cores are throttled, but its work waits for them in part.
    return _made("thermal sawtooth", np.arange(pieces) * period_s / SAWTOOTH_PIECES, factor, 1 + (factor - 1) / 2)


def clock(duration_s: float, period_s: float, *, noticed: bool, factor: float = 1.6) -> Disturbance:
    """The power setting changes to and fro; with notice, the device says so at once."""
    starts, compute = _on_and_off(duration_s, period_s, (factor,))
    name = "clock change, noticed" if noticed else "clock change"
    changes = [(at, before / after) for at, before, after in zip(starts[1:], compute[:-1], compute[1:], strict=True)]
    return _made(name, starts, compute, compute, worse=starts[1::2], notices=changes if noticed else [])


def meter_loss(duration_s: float, period_s: float) -> Disturbance:
    """The meter is silent half of each period; nothing is slower."""
    starts, _ = _on_and_off(duration_s, period_s, (1.0,))
    ones = [1.0] * len(starts)
    return _made("meter loss", starts, ones, ones, metered=[index % 2 == 0 for index in range(len(starts))])


def _on_and_off(duration_s: float, period_s: float, factors: tuple[float, ...]) -> tuple[list[float], list[float]]:
    """Pieces of half a period: quiet, then slow, and so on."""
    pieces = max(2, 2 * int(np.ceil(duration_s / period_s)))
    starts = [index * period_s / 2 for index in range(pieces)]
    return starts, [factors[index // 2 % len(factors)] if index % 2 else 1.0 for index in range(pieces)]


def _made(
    name: str,
    starts: "list[float] | Floats",
    compute: "list[float] | Floats",
    memory: "list[float] | Floats",
    *,
    metered: "list[bool] | None" = None,
    worse: "list[float] | None" = None,
    notices: "list[tuple[float, float]] | None" = None,
) -> Disturbance:
    answers = np.ones(len(starts), dtype=bool) if metered is None else np.asarray(metered)
    return Disturbance(
        name, np.asarray(starts, dtype=float), np.asarray(compute, dtype=float), np.asarray(memory, dtype=float),
        answers, tuple(worse or ()), tuple(notices or ()),
    )  # fmt: skip
