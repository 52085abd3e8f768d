"""Reads what pictures are drawn from: reports of `bench`, decision logs, and profiles."""

import json
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Deque, Dict, List, Mapping, Optional

from wenet_runtime.bundle import Bundle
from wenet_runtime.decision import Decision
from wenet_runtime.decision_file import read_log
from wenet_runtime.errors import SettingsError
from wenet_runtime.plots.story import (
    EXPIRED,
    FAILED,
    LATE,
    REFUSED,
    SIMULATED,
    WITHIN,
    Event,
    Gauge,
    Point,
    Story,
)

KEPT = 200_000  # events: a log may be of any length, a picture shows the last of them
MAX_BYTES = 1 << 30
FORMAT = 1  # of a report

_REFUSALS = (422, 429, 503)


@dataclass(frozen=True)
class Report:
    """What a report of `bench` holds, and when its load began, seconds since 1970."""

    story: Story
    started_at_s: float
    seconds: float


def read_report(path: Path) -> Report:
    """Read what `wenet-runtime bench --out` wrote. Raises `SettingsError`."""
    members = _json(path, "--report", "`wenet-runtime bench --out FILE` writes one")
    try:
        if members["format"] != FORMAT:
            raise ValueError(f"it has format {members['format']!r}, and {FORMAT} can be read here")
        names, budgets_ms = list(members["sample_fields"]), list(members["budgets_ms"])
        events = [_answered(dict(zip(names, row)), budgets_ms) for row in members["samples"][-KEPT:]]
        gauges = [Gauge(float(one["at_s"]), _numbers(one["power_w"]), _numbers(one["temperature_c"]))
                  for one in members["readings"]]  # fmt: skip
        source = next((str(one["source"]) for one in reversed(members["readings"]) if one["source"]), None)
        points = [_served(one) for one in members["modes"]]
        load = members["load"]
        notes = [f"{members['model']}, {load['rate']:g} requests/s ({load['arrivals']})"]
        energies = {one.get("energy_source") for one in members["modes"]} | {source}
        if SIMULATED in energies:
            notes.append("power and energy are SIMULATED")
        decided = [(one.at_s, one.mode) for one in events if one.mode is not None]
        story = Story(events, decided=decided, gauges=gauges, source=source, modes=points, notes=notes)
        return Report(story, float(members["started_at_s"]), float(load["seconds"]))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SettingsError(f"--report '{path}' is no report of `wenet-runtime bench` ({_why(error)})") from None


def _answered(one: Mapping[str, Any], budgets_ms: List[Optional[float]]) -> Event:
    budget_ms = budgets_ms[one["kind"]]
    status = one["status"]
    latency_ms = float(one["latency_ms"])
    if status == 200:
        outcome = WITHIN if budget_ms is None or latency_ms <= budget_ms else LATE
    else:
        outcome = REFUSED if status in _REFUSALS else EXPIRED if status == 504 else FAILED
    ran = status == 200
    return Event(
        float(one["at_s"]),
        outcome,
        one["mode"] if ran else None,
        latency_ms if ran else None,
        budget_ms,
        one["predicted_ms"] if ran else None,
        one["served_ms"] if ran else None,
        one["energy_mj"],
    )


def _served(one: Mapping[str, Any]) -> Point:
    latency_ms = one["latency_ms"]
    source = str(one.get("energy_source", "none"))
    return Point(
        str(one["id"]), float(one["accuracy"]), latency_ms["p50"], latency_ms["p95"], one.get("energy_mj"), source
    )


def read_decisions(path: Path, *, since_s: Optional[float] = None, seconds: float = math.inf) -> Story:
    """Read a decision log.

    Args:
        path: the file.
        since_s: what the picture counts from, seconds since 1970; the first decision if None.
        seconds: how long after that it ends.

    Raises:
        SettingsError: it cannot be read, or holds no decision of that time.
    """
    reading = read_log(path)
    kept: Deque[Decision] = deque(maxlen=KEPT)
    try:
        kept.extend(one for one in reading if since_s is None or since_s <= one.time_s <= since_s + seconds)
    except OSError as error:
        raise SettingsError(f"--decisions '{path}' cannot be read ({error.strerror}): name a decision log") from None
    if not kept:
        when = "" if since_s is None else " of the report's time"
        raise SettingsError(f"--decisions '{path}' holds no decision{when}: name the log that --decision-log wrote")
    start_s = kept[0].time_s if since_s is None else since_s
    events = sorted((_decided(one, start_s) for one in kept), key=lambda one: one.at_s)
    notes = ["decisions of the server"]
    if any(one.energy_source == SIMULATED for one in kept):
        notes.append("energy is SIMULATED")
    if reading.bad:
        notes.append(f"{reading.bad} lines of the log are left out")
    decided = [(one.at_s, one.mode) for one in events if one.mode is not None]
    return Story(events, decisions=events, decided=decided, notes=notes)


def _decided(one: Decision, start_s: float) -> Event:
    outcome = one.outcome
    latency_ms = one.measured_ms
    if latency_ms is not None and one.budget_ms is not None and one.left_ms is not None:
        latency_ms += one.budget_ms - one.left_ms  # what had passed before the decision
    measured_mj = None if one.energy_source in ("none", "estimate") else one.measured_mj
    return Event(
        one.time_s - start_s,
        outcome,
        one.mode_id,
        latency_ms,
        one.budget_ms,
        one.median_ms,
        one.measured_ms,
        measured_mj,
        one.batch_rows,
    )


def read_profile_points(path: Path, bundle: Optional[Path]) -> Story:
    """Read what `wenet-runtime profile --out` wrote, or a cache's profile.json together with its bundle.

    Raises:
        SettingsError: it is neither, or is of another bundle.
        BundleError: the bundle is damaged.
    """
    members = _json(path, "--profile", "`wenet-runtime profile --out FILE` writes one")
    accuracies: Dict[str, float] = {}
    if bundle is not None:
        opened = Bundle(bundle)
        if members.get("bundle_sha256") != opened.sha256:
            raise SettingsError(f"--profile '{path}' is of another bundle than '{bundle}': name the one it is of")
        accuracies = {mode.id: mode.accuracy.value for mode in opened.modes}
    try:
        modes = members["modes"]
        if isinstance(modes, list):
            points = [_profiled(one["id"], one["accuracy"], one["profile"]) for one in modes if "profile" in one]
        elif bundle is None:
            raise SettingsError(f"--profile '{path}' holds no accuracies: give the --bundle that it is of, too")
        else:
            points = [_profiled(name, accuracies[name], figures) for name, figures in modes.items()]
        points.sort(key=lambda one: -one.accuracy)
        engine = str(members["device"]["engine"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f"--profile '{path}' is no profile ({_why(error)})") from None
    notes = [f"{members.get('model') or 'profile'} by {engine}"]
    if engine == SIMULATED:
        notes.append("times are SIMULATED")
    if any(one.energy_source == SIMULATED for one in points):
        notes.append("energy is SIMULATED")
    return Story(modes=points, notes=notes)


def _profiled(mode_id: str, accuracy: float, figures: Mapping[str, Any]) -> Point:
    batches = {int(rows): float(took_ms) for rows, took_ms in (figures.get("batch_ms") or {}).items()}
    return Point(
        str(mode_id),
        float(accuracy),
        float(figures["p50_ms"]),
        float(figures["p95_ms"]),
        figures.get("energy_mj"),
        str(figures.get("energy_source", "none")),
        batches,
    )


def _json(path: Path, flag: str, remedy: str) -> Dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError
        return found
    except OSError as error:
        raise SettingsError(f"{flag} '{path}' cannot be read ({error.strerror}): {remedy}") from None
    except (ValueError, RecursionError):
        raise SettingsError(f"{flag} '{path}' is no JSON object: {remedy}") from None


def _numbers(members: Mapping[str, Any]) -> Dict[str, float]:
    return {str(name): float(value) for name, value in members.items()}


def _why(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)[:100]
