"""Energy of one inference on a GPU: windows of many runs, in turns, and what the GPU takes when nothing runs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.engines.base import Engine, Tensors
from wenet_runtime.errors import MeterError
from wenet_runtime.meters.base import Meter

WINDOW_S = 5.0  # a card's counter moves in steps of up to 0.1 s
REST_S = 0.5  # until the meter has read what a window's end took


@dataclass(frozen=True)
class Energies:
    """What windows took.

    Attributes:
        whole_mj: by mode, (rounds,) mJ an inference, all that the GPU took.
        above_idle_mj: the same without what it takes when nothing runs, at the mean of the two idle powers.
        idle_w: power when nothing runs, before the first window and after the last, W: the latter of a GPU that
            may still keep its clocks.
        watts: by mode, (rounds,) mean power of the window.
        runs: by mode, inferences of each window.
    """

    whole_mj: Mapping[str, NDArray[Any]]
    above_idle_mj: Mapping[str, NDArray[Any]]
    idle_w: tuple[float, float]
    watts: Mapping[str, NDArray[Any]]
    runs: Mapping[str, list[int]]


def measure(
    engines: Mapping[str, Engine],
    inputs: Tensors,
    meter: Meter,
    *,
    rounds: int,
    window_s: float = WINDOW_S,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Energies:
    """Windows of back-to-back runs, one of each engine a round in a new random order, between two idle windows.

    Args:
        engines: by mode, loaded and warm.
        inputs: what every run gets.
        meter: of the GPU.
        rounds: windows of each engine.
        window_s: the least length of each.
        seed: of the order.
        clock: the monotonic clock.
        sleep: how time passes while nothing runs.

    Raises:
        MeterError: the meter does not answer for a window.
    """
    order = np.random.default_rng(seed)
    names = list(engines)
    whole = {name: np.empty(rounds) for name in names}
    watts = {name: np.empty(rounds) for name in names}
    seconds_of = {name: np.empty(rounds) for name in names}
    runs: dict[str, list[int]] = {name: [] for name in names}

    def window(work: Callable[[], None]) -> tuple[float, float, int]:
        """Joules, seconds and how often."""
        count, start_s = 0, clock()
        while clock() < start_s + window_s:
            work()
            count += 1
        end_s = clock()
        sleep(REST_S)
        energy_mj = meter.energy_mj(start_s, end_s)
        if energy_mj is None:
            raise MeterError(f"{meter.source} does not answer for a window of {end_s - start_s:.1f} s")
        return energy_mj / 1e3, end_s - start_s, count

    def idle() -> float:
        sleep(REST_S)
        joules, seconds, _ = window(lambda: sleep(window_s))
        return joules / seconds

    before_w = idle()
    for done in range(rounds):
        for position in order.permutation(len(names)):
            name = names[position]
            engine = engines[name]
            joules, seconds, count = window(lambda engine=engine: engine.infer(inputs))  # type: ignore[misc]
            whole[name][done] = joules * 1e3 / count
            watts[name][done] = joules / seconds
            seconds_of[name][done] = seconds / count
            runs[name].append(count)
    idle_w = (before_w, idle())
    mean_w = sum(idle_w) / 2
    above = {name: whole[name] - mean_w * seconds_of[name] * 1e3 for name in names}
    return Energies(whole, above, idle_w, watts, runs)
