"""Part d: three times the load that ours can take in its fastest mode, as an open loop."""

import http.client
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.common import Figure, at_least, at_most, reported
from benchmarks.load_report import Report, only_allowed, report
from benchmarks.peers.base import TENSOR, Request
from benchmarks.peers.wenet import PEER as WENET
from benchmarks.serving_load import Load, Sent, result, send, start
from benchmarks.serving_stand import Stand, Way
from wenet_runtime.client.load import arrivals

FACTOR = 3.0
BUDGET_FULLS = 3.0  # the budget, in the full mode's profiled medians
LEAST_BUDGET_MS = 30.0
FASTEST = "g16"
CLOSED_CONNECTIONS = 4
OK = 200
EVERY_S = 0.25
GROWTH_MB = 32.0


@dataclass(frozen=True)
class Sizes:
    """Seconds: of the closed loop that finds the capacity, of warming, of the overload for ours and for others."""

    closed_s: float
    warm_s: float
    ours_s: float
    others_s: float
    most_rate: float


FULL = Sizes(3.0, 2.0, 60.0, 8.0, 2000.0)
QUICK = Sizes(0.4, 0.3, 2.0, 1.0, 150.0)


@dataclass(frozen=True)
class Overloaded:
    """What came of a server's overload."""

    sent: Sent
    report: Report
    seconds: float
    before_mb: float
    resident_mb: Sequence[float]

    @property
    def growth_mb(self) -> float:
        """Of its resident memory: the most during the overload less what it was before."""
        return max(self.resident_mb) - self.before_mb


def profile_ms(port: int) -> dict[str, float]:
    """Profiled medians of ours, by mode."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/modes")
        members = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return {mode["id"]: float(mode["latency_ms"]["p50"]) for mode in members["modes"]}


def budget_of(profile: Mapping[str, float]) -> float:
    """Three runs of the most accurate mode."""
    return round(max(BUDGET_FULLS * max(profile.values()), LEAST_BUDGET_MS), 3)


def capacity(stand: Stand, way: Way, sizes: Sizes, core: int) -> float:
    """Requests per second of ours in its fastest mode, closed loop, no budget."""
    path = _file(stand, way, "capacity", {"WeNet-Mode": FASTEST})
    load = Load(way.server.port, path, closed_s=sizes.closed_s, connections=CLOSED_CONNECTIONS, core=core)
    return send(load).per_second()


@dataclass(frozen=True)
class Asked:
    """What every server is asked: arrivals a second, the budget, how long it is warmed, and by whom."""

    rate: float
    budget_ms: float
    warm_s: float
    seed: int
    core: int


def overload(stand: Stand, way: Way, asked: Asked, *, seconds: float) -> Overloaded:
    """Poisson arrivals at a rate, resident memory beside it."""
    budget_ms, seed, core = asked.budget_ms, asked.seed, asked.core
    ours = way.peer.name == WENET.name
    headers = {"WeNet-Budget-Ms": f"{budget_ms:g}", "WeNet-On-Miss": "reject"} if ours else {}
    path = _file(stand, way, "overload", headers)
    warm = arrivals(min(asked.rate, 20.0), asked.warm_s, seed=seed + 1)
    send(Load(way.server.port, path, warm, core=core))
    before_mb = way.server.resident_mb()
    times = arrivals(asked.rate, seconds, seed=seed)
    process = start(Load(way.server.port, path, times, core=core))
    resident: list[float] = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s and process.poll() is None:
        resident.append(way.server.resident_mb())
        time.sleep(EVERY_S)
    sent = result(process, 60.0)
    resident.append(way.server.resident_mb())
    accuracies = {mode.id: mode.accuracy.value for mode in stand.subject.bundle.modes}
    if not ours:  # a server of one mode does not say which
        named = (replace(answer, mode=FASTEST if answer.status == OK else None) for answer in sent.answers)
        sent = replace(sent, answers=tuple(named))
    found = report(sent.answers, budget_ms=budget_ms, seconds=seconds, accuracies=accuracies)
    return Overloaded(sent, found, seconds, before_mb, resident)


def _file(stand: Stand, way: Way, name: str, headers: Mapping[str, str]) -> str:
    made = way.format.encode(stand.subject.content, TENSOR, stand.served)
    path = stand.folder / f"{name}-{way.peer.name.replace(' ', '-')}"
    path.write_bytes(Request(made.path, {**made.headers, **headers}, made.body).to_bytes())
    return str(path)


def figures(found: Mapping[str, Overloaded], asked: Asked, capacity_per_s: float) -> dict[str, Figure]:
    """Ours against the goals, the others beside it."""
    rate, budget_ms = asked.rate, asked.budget_ms
    made: dict[str, Figure] = {}
    for name, one in found.items():
        statuses = dict(Counter(answer.status for answer in one.sent.answers))
        how = (
            f"{rate:.0f} Poisson arrivals a second for {one.seconds:g} s ({rate / capacity_per_s:.2g}x ours in its "
            f"fastest mode), budget {budget_ms:g} ms from the scheduled time, answered {statuses}"
        )
        share = one.report.goodput / capacity_per_s
        key = f"overload: {name}"
        if name != WENET.name:
            made[f"{key}: goodput"] = reported(share, "of ours' capacity", how)
            made[f"{key}: memory growth"] = reported(one.growth_mb, "MB", "most during it less before")
            continue
        made[f"{key}: goodput"] = at_least(share, 0.9, "of capacity", how)
        made[f"{key}: accepted within budget"] = at_least(one.report.accepted_within, 0.99, "of accepted", how)
        good = only_allowed(one.sent.answers)
        made[f"{key}: only 200, 503, 504"] = Figure(float(good), "yes", "= 1", good, how)
        silent = one.sent.without_retry_after
        made[f"{key}: 503s without Retry-After"] = at_most(silent, 0, "replies", how)
        memory = f"{one.before_mb:.1f} MB before, most during it less that"
        made[f"{key}: memory growth"] = at_most(one.growth_mb, GROWTH_MB, "MB", memory)
        made[f"{key}: accuracy"] = reported(one.report.accuracy, "recorded top-1", "of answers within the budget")
        late = one.report.late_ms[1] if one.report.late_ms else 0.0
        made[f"{key}: generator late p99"] = reported(late, "ms", "how late requests were sent")
    return made


def samples(found: Mapping[str, Overloaded]) -> dict[str, Any]:
    """Reports and memory, by server."""
    return {
        name: {
            "report": asdict(one.report),
            "resident_before_mb": round(one.before_mb, 1),
            "resident_mb": [round(mb, 1) for mb in one.resident_mb],
        }
        for name, one in found.items()
    }
