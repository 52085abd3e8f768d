"""Files to draw from: a made-up report of `bench`, decision log and profile of one load on a simulated device."""

import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from wenet_runtime.decision import Decision, line_of

START_S = 1_700_000_000.0
SECONDS = 40.0
FIELDS = (
    "at_s", "late_ms", "latency_ms", "status", "mode", "reason", "predicted_ms", "served_ms", "met", "problem",
    "energy_mj", "energy_source", "kind",
)  # fmt: skip
# id: (accuracy, median ms, mJ); m1 is dominated
MODES: Dict[str, Tuple[float, float, float]] = {
    "m4": (0.761, 28.0, 180.0),
    "m3": (0.756, 19.0, 120.0),
    "m2": (0.741, 12.0, 70.0),
    "m1": (0.700, 13.0, 75.0),
    "m0": (0.642, 5.0, 28.0),
}
BUDGETS_MS = (20.0, 50.0)


def rows() -> List[Dict[str, Any]]:
    """Every sample: a calm first half, then twice the load, so that modes change and some are refused."""
    draw = np.random.default_rng(5)
    found = []
    at_s = 0.0
    while at_s < SECONDS:
        busy = at_s > SECONDS / 2
        kind = len(found) % 2
        budget_ms = BUDGETS_MS[kind]
        slow = (2.2 if busy else 1.0) * draw.lognormal(0, 0.08)
        fitting = [mode for mode, (_, ms, _) in MODES.items() if ms * slow * 1.15 <= budget_ms]
        sample = dict.fromkeys(FIELDS)
        sample.update(at_s=round(at_s, 4), late_ms=0.1, kind=kind)
        if not fitting or (busy and draw.random() < 0.08):
            sample.update(latency_ms=1.5, status=503, problem="deadline-infeasible")
        else:
            mode = fitting[0]
            ms = MODES[mode][1] * slow * draw.lognormal(0, 0.1)
            sample.update(
                latency_ms=ms + 0.8, status=200, mode=mode, reason="fits", predicted_ms=MODES[mode][1] * slow,
                served_ms=ms, met=ms <= budget_ms, energy_mj=MODES[mode][2] * draw.lognormal(0, 0.05),
                energy_source="sim",
            )  # fmt: skip
        found.append(sample)
        at_s += draw.exponential(1 / (40 if busy else 20))
    return found


def write_report(path: Path, **changes: Any) -> Path:
    """What `wenet-runtime bench --out` would write; `changes` replace members."""
    samples = rows()
    readings = []
    for second in range(-2, int(SECONDS) + 1):
        near = [one for one in samples if one["mode"] and second - 1 <= one["at_s"] < second]
        watts = 2.0 + sum(one["energy_mj"] for one in near) / 1e3
        heat = {"CPU-therm": 40 + 0.2 * max(0, second), "GPU-therm": 38 + 0.35 * max(0, second)}
        readings.append(
            {
                "at_s": second + 0.01,
                "power_w": {"sim": watts},
                "temperature_c": heat,
                "source": "sim",
                "energy_mj": None,
            }
        )
    modes = [
        {"id": mode, "accuracy": accuracy, "latency_ms": {"p50": ms, "p95": ms * 1.1, "p99": ms * 1.2},
         "energy_mj": mj, "energy_source": "sim"}
        for mode, (accuracy, ms, mj) in MODES.items()
    ]  # fmt: skip
    members: Dict[str, Any] = {
        "format": 1,
        "started_at_s": START_S,
        "model": "made_up_net",
        "load": {"arrivals": "poisson", "rate": 30.0, "seconds": SECONDS},
        "budgets_ms": list(BUDGETS_MS),
        "modes": modes,
        "readings": readings,
        "sample_fields": list(FIELDS),
        "samples": [[one[name] for name in FIELDS] for one in samples],
        **changes,
    }
    path.write_text(json.dumps(members))
    return path


def write_log(path: Path) -> Path:
    """What the server's --decision-log would hold of that load."""
    lines = []
    for number, one in enumerate(rows()):
        budget_ms = BUDGETS_MS[one["kind"]]
        ran = one["mode"] is not None
        lines.append(
            line_of(
                Decision(
                    number,
                    START_S + one["at_s"],
                    f"r{number}",
                    1,
                    1,
                    "refused" if not ran else "answered" if one["met"] else "late",
                    one["reason"] or one["problem"],
                    one["mode"],
                    budget_ms=budget_ms,
                    left_ms=budget_ms - 0.5,
                    median_ms=one["predicted_ms"],
                    measured_ms=one["served_ms"],
                    measured_mj=one["energy_mj"],
                    energy_source="sim" if ran else "none",
                    batch_rows=(1 + number % 2) if ran else None,
                )
            )
        )
    path.write_bytes(b"".join(lines))
    return path


def profile_members(*, batches: bool = True) -> Dict[str, Any]:
    """What `wenet-runtime profile --out` would write."""
    found = []
    for mode, (accuracy, ms, mj) in MODES.items():
        sweep = {str(size): ms * (0.35 + 0.65 * size) for size in (2, 4, 8, 16)} if batches else None
        profile = {
            "p50_ms": ms, "p95_ms": ms * 1.1, "p99_ms": ms * 1.2, "runs": 100, "energy_mj": mj,
            "energy_source": "sim", "threads": None, "batch_ms": sweep,
        }  # fmt: skip
        found.append({"id": mode, "accuracy": accuracy, "profile": profile})
    return {"bundle_sha256": "5" * 64, "model": "made_up_net", "device": {"engine": "sim"}, "modes": found}
