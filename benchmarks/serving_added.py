"""Part a: what each server adds to `session.run`, one client, servers asked by turns."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, at_least, at_most, reported
from benchmarks.peers.base import JPEG, TENSOR
from benchmarks.serving_client import Connection
from benchmarks.serving_stand import Stand, check_numbers
from benchmarks.serving_statistics import Mean, mean_of, percentile, rounded
from wenet_runtime.engines.ort import OrtBackend

SESSION = "session.run"
RAW, BINARY = "wenet, raw", "wenet, V2 binary"
WARM = 5  # requests of a turn that are not counted: what the other servers took out of the caches comes back
TURN_S = 0.4
LEAST = 5  # requests of a turn, however long they take
OK = 200


@dataclass(frozen=True)
class Sizes:
    """Turns of each way, requests of a turn, how long a turn may take."""

    turns: int
    requests: int


FULL = Sizes(12, 80)
QUICK = Sizes(2, 8)

# Over what ours is measured, against which of ours. The first format of ours is its best; V2 binary is Triton's too.
LIMITS = (("asgi, raw", 1.25), ("triton, V2 binary", 1.0))
FACTORS = {
    "litserve, base64": 8.0,
    "litserve, raw": 8.0,
    "mlserver, V2 JSON": 20.0,
    "mlserver, base64": 20.0,
    "mlserver parallel_workers=0, V2 JSON": 20.0,
    "mlserver parallel_workers=0, base64": 20.0,
}
LARGE = "602 KB"  # the body that these factors are the goals of
JPEG_FACTOR = 3.0  # of LitServe's base64
P99_OVER_P50 = 3.0
JPEG_MS = 1.5


@dataclass(frozen=True)
class Taken:
    """What part a saw.

    Attributes:
        turns: milliseconds by way and turn.
        cpu_ms: processor time of a server's processes per request, by way. Other work hardly shows in it.
    """

    turns: Mapping[str, Sequence[Sequence[float]]]
    cpu_ms: Mapping[str, float]


def take(stand: Stand, kind: str, sizes: Sizes, seed: int) -> Taken:
    """In every round each way has one turn, in random order."""
    engine = OrtBackend().load_bytes(Path(stand.served.models[0]).read_bytes(), name=SESSION)
    values = np.frombuffer(stand.subject.content, np.float32).reshape(stand.served.shape)
    ways = {way.name: way for way in stand.ways if kind in way.request}
    found: dict[str, list[list[float]]] = {name: [] for name in (SESSION, *ways)}
    answers: dict[str, NDArray[np.float32]] = {}
    cpu_ms = dict.fromkeys(ways, 0.0)
    order = np.random.default_rng(seed)

    def session() -> float:
        start = time.perf_counter()
        engine.infer({stand.served.input: values})
        return (time.perf_counter() - start) * 1e3

    gc.collect()
    gc.disable()
    try:
        for _ in range(sizes.turns):
            for name in order.permutation(list(found)):
                if name == SESSION:
                    found[name].append(_turn(session, sizes))
                    continue
                way = ways[name]
                connection = Connection(way.server.port)  # a new one: servers close those that were idle for a while
                before_ms = way.server.cpu_ms()
                try:
                    found[name].append(_turn(partial(_ask, connection, way.request[kind]), sizes))
                    reply = connection.ask(way.request[kind])
                finally:
                    connection.close()
                cpu_ms[name] += way.server.cpu_ms() - before_ms
                numbers = way.format.decode(reply.headers, reply.body)
                check_numbers(numbers, answers.setdefault(name, numbers))
    finally:
        gc.enable()
        engine.close()
    asked = {name: sum(map(len, found[name])) + (WARM + 1) * sizes.turns for name in ways}
    return Taken(found, {name: cpu_ms[name] / asked[name] for name in ways})


def _ask(connection: Connection, request: bytes) -> float:
    reply = connection.ask(request)
    if reply.status != OK:
        raise RuntimeError(f"answered {reply.status}: {reply.body[:200]!r}")
    return reply.ms


def _turn(ask: Callable[[], float], sizes: Sizes) -> list[float]:
    end_s = time.perf_counter() + TURN_S
    for _ in range(WARM):
        ask()
    turn: list[float] = []
    while len(turn) < sizes.requests and (len(turn) < LEAST or time.perf_counter() < end_s):
        turn.append(ask())
    return turn


def added(turns: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Mean]:
    """What each way adds: its median less the session's, per turn."""
    session = [float(np.median(turn)) for turn in turns[SESSION]]
    return {
        name: mean_of([float(np.median(turn)) - base for turn, base in zip(found, session, strict=True)])
        for name, found in turns.items()
        if name != SESSION
    }


def added_p99(turns: Mapping[str, Sequence[Sequence[float]]], name: str) -> float:
    """The 99th percentile of all turns together, less the session's median."""
    session = float(np.median([one for turn in turns[SESSION] for one in turn]))
    return percentile([one for turn in turns[name] for one in turn], 99) - session


def ratio(turns: Mapping[str, Sequence[Sequence[float]]], above: str, below: str) -> Mean:
    """How many times what one way adds the other adds, per turn."""
    session = [float(np.median(turn)) for turn in turns[SESSION]]
    pairs = zip(turns[above], turns[below], session, strict=True)
    return mean_of([(float(np.median(a)) - base) / (float(np.median(b)) - base) for a, b, base in pairs])


def figures(turns: Mapping[str, Sequence[Sequence[float]]], name: str, kind: str) -> dict[str, Figure]:
    """Figures against the issue's goals, losses too.

    Args:
        turns: from `take`.
        name: of the body.
        kind: tensor or JPEG.
    """
    found: dict[str, Figure] = {}
    for way, mean in added(turns).items():
        p99 = added_p99(turns, way)
        how = f"median less the session's: {mean}; p99 {p99:.4g} ms of {sum(map(len, turns[way]))} requests"
        found[f"{name}: {way}: added p50"] = (
            at_most(mean.value, JPEG_MS, "ms", how) if kind == JPEG and way == RAW else reported(mean.value, "ms", how)
        )
    for ours in (one for one in (RAW, BINARY) if one in turns):
        how = "added p99 / added p50"
        value = added_p99(turns, ours) / added(turns)[ours].value
        found[f"{name}: {ours}: p99 / p50"] = at_most(value, P99_OVER_P50, "x", how)
        for other, limit in LIMITS if kind == TENSOR else ():
            if other in turns:
                mean = ratio(turns, ours, other)
                found[f"{name}: {ours} / {other}"] = at_most(mean.value, limit, "x", f"of what they add: {mean}")
    for other, least in FACTORS.items():
        if other in turns and RAW in turns:
            mean = ratio(turns, other, RAW)
            how = f"of what they add: {mean}"
            goal = JPEG_FACTOR if kind == JPEG else least
            judged = other == "litserve, base64" if kind == JPEG else name == LARGE
            figure = at_least(mean.value, goal, "x", how) if judged else reported(mean.value, "x", how)
            found[f"{name}: {other} / {RAW}"] = figure
    return found


def samples(taken: Taken) -> dict[str, Any]:
    """Percentiles of all turns, each turn's median, and the server's processor time per request, by way."""
    return {
        name: {
            "p50_p90_p99_max_ms": rounded(np.percentile(np.concatenate(found), (50, 90, 99, 100)).tolist()),
            "turn_p50_ms": rounded([float(np.median(turn)) for turn in found]),
            "requests": sum(map(len, found)),
            "server_cpu_ms": round(taken.cpu_ms.get(name, 0.0), 3),
        }
        for name, found in taken.turns.items()
    }
