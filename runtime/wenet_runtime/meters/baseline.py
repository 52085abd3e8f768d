"""What the board draws when nothing runs, watched for a moment at the start."""

import time
from typing import Callable, Optional

from wenet_runtime.meters.base import OK, STARTING, Meter

WATCHED_S = 1.0
PATIENCE_S = 5.0
STEP_S = 0.05


def measure_idle_w(
    meter: Meter,
    *,
    watched_s: float = WATCHED_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Optional[float]:
    """The mean power of a moment in which this process does nothing, W; None where the meter does not tell.

    It is what the board draws as it is: other programs and clocks that are still high are part of it.

    Args:
        meter: it is waited for a while until it gives readings.
        watched_s: how long to watch.
        clock: the monotonic clock.
        sleep: waits.
    """
    begun_s = clock()
    while meter.state().status == STARTING and clock() - begun_s < PATIENCE_S:
        sleep(STEP_S)
    if meter.state().status != OK:
        return None
    start_s = clock()
    sleep(watched_s)
    end_s = clock()
    spent_mj = meter.energy_mj(start_s, end_s)
    return None if spent_mj is None or end_s <= start_s else spent_mj / (end_s - start_s) / 1e3
