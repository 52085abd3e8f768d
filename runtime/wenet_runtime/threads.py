"""On how many threads a mode is quickest, since more help large layers and hinder small ones; and on which core."""

import os
from contextlib import ExitStack, closing
from typing import Any, Callable, Dict, List, Mapping

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.engines.base import Engine, Tensors
from wenet_runtime.errors import SettingsError
from wenet_runtime.profiler import sample

LEAST_GAIN = 0.05  # threads that bring less are left to the rest of the device


def thread_counts(cores: int) -> List[int]:
    """What is tried on a device of so many cores: powers of two, and all of them."""
    powers = [1 << exponent for exponent in range(cores.bit_length()) if 1 << exponent < cores]
    return [*powers, cores]


def tuned(load: Callable[[int], Engine], inputs: Tensors, *, cores: int, rounds: int) -> int:
    """The number of threads that a mode should have, measured interleaved.

    Args:
        load: opens the mode with so many threads.
        inputs: what every run gets.
        cores: the most that are tried.
        rounds: runs with each number.
    """
    counts = thread_counts(cores)
    with ExitStack() as opened:
        engines = {str(count): opened.enter_context(closing(load(count))) for count in counts}
        samples = sample(engines, inputs, rounds=rounds)
    return quickest({count: samples[str(count)] for count in counts})


def quickest(samples_ms: Mapping[int, NDArray[Any]]) -> int:
    """The fewest threads than which no more are quicker by the least gain that counts."""
    medians: Dict[int, float] = {count: float(np.median(samples)) for count, samples in sorted(samples_ms.items())}
    best = next(iter(medians))
    for count, median in medians.items():
        if median < medians[best] * (1 - LEAST_GAIN):
            best = count
    return best


def pin_this_thread(core: int) -> None:
    """Keep the calling thread on one core. Raises `SettingsError` where there is none, or the system cannot."""
    try:
        os.sched_setaffinity(0, {core})  # 0: this thread alone
    except (OSError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or "this system cannot pin threads"
        raise SettingsError(f"cannot pin the engine to core {core}: {reason}") from None
