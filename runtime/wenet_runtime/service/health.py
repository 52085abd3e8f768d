"""The body of GET /v2/health: whether the server and its meter do what they should, and what to do if not."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Dict, Optional

from wenet_runtime.meters.base import UNAVAILABLE, Meter, MeterState, Power
from wenet_runtime.runtime import Runtime


def is_ready(runtime: Runtime) -> bool:
    """Whether a request can be answered now."""
    return bool(not runtime.draining and runtime.pool.resident and runtime.trouble is None)


def health(runtime: Runtime, meter_name: str = "") -> Dict[str, Any]:
    """Never raises for what a meter does: it may be somebody's own."""
    residency = runtime.pool.residency
    return {
        "live": True,
        "ready": is_ready(runtime),
        "draining": runtime.draining,
        "engine": {"trouble": runtime.trouble, "stuck_s": round(runtime.stuck_s, 1) if runtime.stuck else 0.0},
        "meter": {"name": meter_name or None, **_meter(runtime.meter)},
        "modes": {
            "resident": [one for one in runtime.pool.modes if one in residency.resident],
            "out": {one: without_home(why) for one, why in residency.out.items()},
        },
    }


def meter_state(meter: Meter) -> MeterState:
    """What a meter says of itself, its numbers possible; `unavailable` if it says nothing."""
    try:
        state = meter.state()
        numbers = {name: _possible(getattr(state, name)) for name in ("interval_s", "stale_after_s", "resolution_mw")}
        restarts = max(0, int(state.restarts))
        return dataclasses.replace(
            state, status=str(state.status), detail=without_home(str(state.detail)), restarts=restarts, **numbers
        )
    except Exception as error:  # noqa: BLE001 - a meter may come from elsewhere, and costs no more than its state
        return MeterState(UNAVAILABLE, without_home(f"it does not say how it is ({type(error).__name__}: {error})"))


def meter_power(meter: Meter) -> Optional[Power]:
    """The meter's reading if it can be one, its age NaN where that cannot be one. Raises what the meter raises."""
    power = meter.power()
    if power is None or _possible(power.watts) is None:
        return None
    return power if _possible(power.age_s) is not None else dataclasses.replace(power, age_s=math.nan)


def without_home(text: str) -> str:
    """A text for whoever asks over the network: a file's place in somebody's home is nobody's business."""
    home = str(Path.home())
    return text if len(home) < 2 else text.replace(home, "~")


def _meter(meter: Meter) -> Dict[str, Any]:
    state = meter_state(meter)
    try:
        power = meter_power(meter)
    except Exception:  # noqa: BLE001 - as above; that it fails is logged where metrics are read
        power = None
    return {
        "source": str(meter.source),
        **dataclasses.asdict(state),
        "rail": None if power is None else str(power.rail),
        "watts": None if power is None else _possible(power.watts),
        "age_s": None if power is None else _possible(power.age_s),
        "idle_w": _possible(meter.idle_w),
    }


def _possible(value: Any) -> Optional[float]:
    """A number that can be one, rounded; None of all else."""
    number = float(value) if isinstance(value, (int, float)) else math.nan
    return round(number, 4) if 0.0 <= number < math.inf else None
