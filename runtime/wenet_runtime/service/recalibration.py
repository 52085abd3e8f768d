"""Measures the modes that are served again, one run at a time whenever nothing waits, and predicts from that.

A request that comes meanwhile waits for one run at most. What a run takes here is what it takes while serving: on the
same thread, with the modes by turns. What a mode takes above the idle board stays as it was profiled: one run is
shorter than a meter resolves.
"""

import asyncio
import dataclasses
import datetime
import logging
from typing import Dict, List, Optional

from starlette.concurrency import run_in_threadpool

from wenet_runtime.errors import WeNetError
from wenet_runtime.profile import Profile, profile_of
from wenet_runtime.profile_file import DeviceProfile
from wenet_runtime.service.serving import Serving

ROUNDS = 50  # runs of each mode: enough for a 95th percentile
RUN_S = 30.0  # a device that is never free for so long has no time to be measured

_LOG = logging.getLogger(__name__)


async def measure_again(serving: Serving) -> None:
    """`recalibrate`, which says in the log what came of it."""
    try:
        found = await recalibrate(serving)
    except (asyncio.TimeoutError, WeNetError) as error:
        _LOG.warning("the modes are not measured again, the profiles stay: %s", error or "the device is never free")
    else:
        _LOG.warning("measured again: %s", ", ".join(f"{one} {its.p50_ms:.3g} ms" for one, its in found.items()))


async def recalibrate(serving: Serving, *, rounds: int = ROUNDS, run_s: float = RUN_S) -> Dict[str, Profile]:
    """Measure, and put the profiles in the place of the old ones, in memory and in the cache.

    Args:
        serving: whose resident modes are measured.
        rounds: runs of each.
        run_s: how long to wait for the device to be free.

    Raises:
        asyncio.TimeoutError: it was not.
        WeNetError: a mode cannot be run, or the cache cannot be written.
    """
    runtime = serving.runtime
    known, out = runtime.controller.profiles, runtime.pool.residency.out
    modes = [one for one in runtime.pool.modes if one in runtime.pool.residency.resident and one in known]
    samples: Dict[str, List[float]] = {one: [] for one in modes if one not in out}
    for number in range(rounds + 1):
        for mode_id, taken in samples.items():
            took_ms = await asyncio.wait_for(asyncio.wrap_future(runtime.measure(mode_id)), run_s)
            if number:  # the first is a warm-up
                taken.append(took_ms)
    idle_w = runtime.controller.idle_w
    found = {one: renewed(known[one], taken, idle_w) for one, taken in samples.items()}
    runtime.recalibrate(found)
    if serving.cache is not None:
        meter = runtime.meter.source
        await run_in_threadpool(serving.cache.update_profile, lambda now: _joined(now, found, meter))
    return found


def renewed(before: Profile, samples_ms: List[float], idle_w: Optional[float] = None) -> Profile:
    """A profile with other times, in which the idle board's watts, if they are known, were drawn for longer or less.

    Whole batches, which are not measured here, are taken to have changed as one row.
    """
    times = profile_of(samples_ms)
    by = times.p50_ms / before.p50_ms
    energy_mj = before.energy_mj
    if energy_mj is not None:
        energy_mj = max(0.0, energy_mj + (idle_w or 0.0) * (times.p50_ms - before.p50_ms))
    batches = None if before.batch_ms is None else {rows: ms * by for rows, ms in before.batch_ms.items()}
    return dataclasses.replace(
        before,
        p50_ms=times.p50_ms,
        p95_ms=times.p95_ms,
        p99_ms=times.p99_ms,
        runs=times.runs,
        batch_ms=batches,
        energy_mj=energy_mj,
    )


def _joined(now: Optional[DeviceProfile], found: Dict[str, Profile], meter: str) -> DeviceProfile:
    when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    if now is None:
        return DeviceProfile(found, meter, when)
    return dataclasses.replace(now, modes={**now.modes, **found}, measured_at=when)
