"""Part c: how soon a server says that it cannot keep a limit, while a run that outlasts the limit is in flight."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.common import Figure, at_most, reported
from benchmarks.peers.base import Peer, Request, Served
from benchmarks.peers.wenet import PEER as WENET
from benchmarks.serving_client import Connection
from benchmarks.serving_models import FAST, SLOW, Subject
from benchmarks.serving_stand import Stand, Way
from benchmarks.serving_statistics import percentile, rounded

IN_FLIGHT_S = 0.04  # after which the slow run is being executed
APART_S = 0.01
OK, REFUSED = 200, (503,)
GOAL_MS = 5.0


@dataclass(frozen=True)
class Sizes:
    """The slow run, the limit, and how often it is tried: slow runs of ours, of the others."""

    slow_ms: float
    limit_ms: float
    ours: int
    others: int


FULL = Sizes(500.0, 100.0, 20, 8)
QUICK = Sizes(160.0, 40.0, 3, 2)


@dataclass(frozen=True)
class Probe:
    """One request behind a slow run: how long its answer took, and which it was."""

    ms: float
    status: int
    retry_after: bool


def take(stand: Stand, sizes: Sizes) -> tuple[dict[str, list[Probe]], dict[str, float]]:
    """Probes by server, and how long a slow run took there, ms. Servers take turns, one slow run each."""
    first = {way.peer.name: way for way in reversed(stand.ways)}
    probes: dict[str, list[Probe]] = {name: [] for name in first}
    slow: dict[str, list[float]] = {name: [] for name in first}
    tries = {name: sizes.ours if name == WENET.name else sizes.others for name in first}
    alone = {name: _alone(way, stand, sizes) for name, way in first.items()}
    for number in range(max(tries.values())):
        for name, way in first.items():
            if number < tries[name]:
                slow[name].append(_behind(way, stand, sizes, alone[name], probes[name]))
    return probes, {name: float(np.median(times)) for name, times in slow.items()}


def _alone(way: Way, stand: Stand, sizes: Sizes) -> float:
    """What a slow run takes with nothing beside it, ms, at least; as planned where the server gives it up."""
    slow, _ = contents(stand.subject)
    request = _request(way, slow, stand.served, {"WeNet-Mode": SLOW}).to_bytes()
    times = []
    for _ in range(2):
        connection = Connection(way.server.port)
        try:
            reply = connection.ask(request)
        finally:
            connection.close()
        times.append(reply.ms if reply.status == OK else sizes.slow_ms)
        time.sleep(IN_FLIGHT_S + sizes.slow_ms / 1e3 * (reply.status != OK))  # given up on, it still runs
    return min(times)


def _behind(way: Way, stand: Stand, sizes: Sizes, alone_ms: float, probes: list[Probe]) -> float:
    """One slow run, and as many probes behind it as are answered before less than the limit is left of it."""
    slow, probe = contents(stand.subject)
    served = stand.served
    running, asking = Connection(way.server.port), Connection(way.server.port)
    try:
        running.send(_request(way, slow, served, {"WeNet-Mode": SLOW}).to_bytes())
        end_s = time.monotonic() + (alone_ms - sizes.limit_ms) / 1e3 - 2 * IN_FLIGHT_S
        time.sleep(IN_FLIGHT_S)
        request = _request(way, probe, served, {"WeNet-Budget-Ms": f"{sizes.limit_ms:g}"}).to_bytes()
        while True:
            reply = asking.ask(request)
            probes.append(Probe(reply.ms, reply.status, reply.headers.get("retry-after", "").isdigit()))
            time.sleep(APART_S)
            if time.monotonic() > end_s:
                break
        ms = running.reply().ms
        time.sleep(IN_FLIGHT_S + sizes.slow_ms / 1e3 * (ms < sizes.slow_ms / 2))  # given up on, it still runs
        return ms
    finally:
        running.close()
        asking.close()


def contents(subject: Subject) -> tuple[bytes, bytes]:
    """A tensor that makes the others run slowly, and one that does not."""
    values = np.frombuffer(subject.content, np.float32).copy()
    values[0] = 1.0
    slow = values.tobytes()
    values[0] = 0.0
    return slow, values.tobytes()


def _request(way: Way, content: bytes, served: Served, headers: Mapping[str, str]) -> Request:
    """Ours is told by headers what the others are told by the tensor and their settings."""
    made = way.format.encode(content, "tensor", served)
    return Request(made.path, {**made.headers, **headers}, made.body) if way.peer.name == WENET.name else made


def figures(
    probes: Mapping[str, Sequence[Probe]], slow_ms: Mapping[str, float], sizes: Sizes, peers: Sequence[Peer]
) -> dict[str, Figure]:
    """Time to an answer at the 99th percentile, or the largest where there are few."""
    made: dict[str, Figure] = {}
    for name, found in probes.items():
        times = [one.ms for one in found]
        statuses = dict(Counter(one.status for one in found))
        waits = next(one.waits for one in peers if one.name == name) or "has no limit of waiting"
        how = (
            f"behind a run of {slow_ms[name]:.0f} ms, limit {sizes.limit_ms:g} ms ({waits}): "
            f"{len(found)} requests, median {percentile(times, 50):.4g} ms, answered {statuses}"
        )
        p99 = percentile(times, 99)
        ours = name == WENET.name
        made[f"refusal: {name}: p99"] = at_most(p99, GOAL_MS, "ms", how) if ours else reported(p99, "ms", how)
        if ours:
            good = sum(one.status in REFUSED and one.retry_after for one in found) / len(found)
            made["refusal: wenet: 503 with Retry-After"] = Figure(good, "of requests", "= 1", good == 1, how)
    return made


def samples(probes: Mapping[str, Sequence[Probe]], slow_ms: Mapping[str, float]) -> dict[str, object]:
    """All probes."""
    return {
        name: {
            "slow_run_ms": slow_ms[name],
            "ms": rounded([one.ms for one in found], 3),
            "status": [one.status for one in found],
        }
        for name, found in probes.items()
    }


MODES = (FAST, SLOW)
