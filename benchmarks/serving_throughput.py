"""Part b: requests per second of a real sub-network, beside a loop that only runs its session."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.common import Figure, at_least, reported
from benchmarks.peers.base import TENSOR
from benchmarks.serving_load import Load, Sent, send
from benchmarks.serving_raw import Raw
from benchmarks.serving_stand import Stand
from benchmarks.serving_statistics import mean_of

LOOP = "session loop"
CLIENTS = 4
LEAST = 0.97
RAW, BINARY = "wenet, raw", "wenet, V2 binary"
OVER = {"litserve": 1.3, "mlserver": 1.3, "triton": 0.95}  # by how a peer's name begins


@dataclass(frozen=True)
class Sizes:
    """Turns of each way, seconds of a turn, seconds that warm a way up."""

    turns: int
    seconds: float
    warm_s: float


FULL = Sizes(5, 2.0, 0.5)
QUICK = Sizes(2, 1.0, 0.3)


def take(stand: Stand, sizes: Sizes, seed: int, core: int) -> dict[str, list[float]]:
    """Requests per second by way and turn; every round each way has one turn, in random order.

    Each server is asked in its best format, ours in V2 binary too.
    """
    best = {way.peer.name: way.name for way in reversed(stand.ways)}
    ways = {way.name: way for way in stand.ways if way.name in (*best.values(), BINARY)}
    found: dict[str, list[float]] = {name: [] for name in (LOOP, *ways)}
    order = np.random.default_rng(seed)
    loads = {}
    for number, (name, way) in enumerate(ways.items()):
        request = stand.folder / f"request{number}"
        request.write_bytes(way.request[TENSOR])
        loads[name] = (way.server.port, str(request))
    raw = Raw(stand.served)

    def load(name: str, seconds: float) -> Sent:
        port, request = loads[name]
        return send(Load(port, request, closed_s=seconds, connections=CLIENTS, core=core))

    try:
        raw.per_second(sizes.warm_s)
        for name in ways:
            load(name, sizes.warm_s)
        for _ in range(sizes.turns):
            for name in order.permutation(list(found)):
                rate = raw.per_second(sizes.seconds) if name == LOOP else load(name, sizes.seconds).per_second()
                found[name].append(rate)
    finally:
        raw.close()
    return found


def figures(found: Mapping[str, Sequence[float]]) -> dict[str, Figure]:
    """Each way as a share of the loop in the same round, and ours as a share of others."""
    made: dict[str, Figure] = {}
    for name, rates in found.items():
        share = mean_of([one / base for one, base in zip(rates, found[LOOP], strict=True)])
        how = f"of the loop in the same round: {share}; {mean_of(rates)} a second, {CLIENTS} clients"
        key = f"throughput: {name}"
        made[key] = at_least(share.value, LEAST, "x", how) if name == RAW else reported(share.value, "x", how)
    for name, rates in found.items():
        least = next((value for begin, value in OVER.items() if name.startswith(begin)), None)
        if least is not None and RAW in found:
            share = mean_of([ours / other for ours, other in zip(found[RAW], rates, strict=True)])
            made[f"throughput: {RAW} / {name}"] = at_least(share.value, least, "x", f"per round: {share}")
    return made
