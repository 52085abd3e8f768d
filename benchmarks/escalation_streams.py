"""Streams of requests to a guarded cascade: normal ones and attacks, with measured mode times and no engine."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Measured, at_most, reported
from wenet_runtime.guard import ALLOWANCE, CLIENT_FALSE_ALARMS, FALSE_ALARMS, Guard

STATIC, ALARM = 1.1, 50  # goals
WINDOW = 200
ATTACKS, AFTER = 2_000, 1_000  # requests of an attack; of normal traffic before one
POLICY = "of the static policy's"
ATTACKER = "attacker"

# Number of the request → client, and whether it escalates.
Stream = Callable[[int], tuple[str, bool]]


@dataclass(frozen=True)
class Terms:
    """What a stream runs against: a rule's share, and what its first mode costs as a share of the second."""

    share: float
    cost: float


@dataclass(frozen=True)
class Told:
    """What a stream came to.

    Attributes:
        costs: (N,) time of each request as a share of the static policy's.
        alarm_after: requests until the first alarm, of a client or of all; None where none came.
        alarms: how many.
        cascaded: share of the requests that the guard let be cascaded.
        others: the same of the requests that are not the attacker's; 1 where there are none.
        microseconds: mean time of the guard's two calls for a request.
    """

    costs: NDArray[np.float64]
    alarm_after: int | None
    alarms: int
    cascaded: float
    others: float
    microseconds: float

    @property
    def worst_window(self) -> float:
        """The greatest mean cost over any stretch of 200 requests or more."""
        sums = np.concatenate([[0.0], np.cumsum(self.costs)])
        sizes = range(WINDOW, min(2 * WINDOW, len(self.costs)) + 1)  # longer ones are made of these
        return max(float((sums[size:] - sums[:-size]).max()) / size for size in sizes)


def send(stream: Stream, requests: int, terms: Terms, guard: Guard | None = None) -> Told:
    """Send a stream's requests to a guard, a new one by default.

    Args:
        stream: what is sent.
        requests: how many.
        terms: the rule.
        guard: one that has seen other streams.
    """
    guard = guard or Guard()
    costs, alarm_after, before = np.ones(requests), None, guard.state.alarms
    cascaded, spent = {True: 0, False: 0}, 0.0
    asked = {True: 0, False: 0}
    for number in range(requests):
        client, escalated = stream(number)
        start = time.perf_counter()
        allowed = guard.allows(client)
        if allowed:
            guard.observe(client, escalated, terms.share, terms.cost)
        spent += time.perf_counter() - start
        asked[client == ATTACKER] += 1
        if allowed:
            cascaded[client == ATTACKER] += 1
            costs[number] = terms.cost + escalated
            if alarm_after is None and guard.alarms != before:
                alarm_after = number + 1
    return Told(
        costs=costs,
        alarm_after=alarm_after,
        alarms=guard.alarms - before,
        cascaded=sum(cascaded.values()) / requests,
        others=cascaded[False] / asked[False] if asked[False] else 1.0,
        microseconds=1e6 * spent / requests,
    )


def one_attacker(number: int) -> tuple[str, bool]:
    """Always escalates, under one name."""
    return ATTACKER, True


def many_names(number: int) -> tuple[str, bool]:
    """Always escalates, under a new name each time."""
    return str(number), True


def normal(share: float, seed: int, clients: int = 1) -> Stream:
    """Escalates as often as this, at random."""
    draw = random.Random(seed)
    return lambda number: (f"client {draw.randrange(clients)}", draw.random() < share)


def among_others(share: float, seed: int, clients: int) -> Stream:
    """One attacker that sends every fourth request, among normal clients."""
    draw = random.Random(seed)

    def stream(number: int) -> tuple[str, bool]:
        if number % 4 == 0:
            return ATTACKER, True
        return f"client {draw.randrange(clients)}", draw.random() < share

    return stream


def attacked(terms: Terms, requests: int, seed: int) -> Measured:
    """What attacks on a rule cost, and what normal traffic meets.

    Args:
        terms: the rule's share and the modes' measured times.
        requests: of a normal stream.
        seed: of everything random.
    """
    attacks = {"one attacker": one_attacker, "new names": many_names}
    told = {name: send(stream, ATTACKS, terms) for name, stream in attacks.items()}
    usual = send(normal(terms.share, seed), requests, terms)
    drifted = send(normal((1 + ALLOWANCE) * terms.share, seed + 1), requests, terms)
    others = send(among_others(terms.share, seed + 2, 30), max(ATTACKS, requests // 50), terms)
    late = [_late(terms, seed + number) for number in range(max(20, requests // 5_000))]
    how = f"all escalate, simulated; normal share {terms.share:.3f}, first mode's time {terms.cost:.3f} of the second's"
    figures = {
        "attack: mean time": at_most(
            max(float(one.costs.mean()) for one in told.values()), STATIC, POLICY, f"{ATTACKS} requests, {how}"
        ),
        "attack: mean time, worst stretch": at_most(
            max(one.worst_window for one in (*told.values(), *late)),
            STATIC,
            POLICY,
            f"{WINDOW} requests or more, {how}",
        ),
        "attack: alarm": at_most(
            float(max(one.alarm_after or ATTACKS for one in told.values())), ALARM, "requests", f"slower of two, {how}"
        ),
        "attack: alarm after normal traffic": reported(
            sum(one.alarm_after is not None and one.alarm_after <= ALARM for one in late) / len(late),
            f"within {ALARM} requests",
            f"{len(late)} attacks under new names after {AFTER} normal requests; in the others tokens ended first, and "
            "with them the cascade",
        ),
        "attack: others cascaded": reported(
            others.others, "of their requests", "one of 31 clients sends every fourth request, and all of its escalate"
        ),
        "false alarms": at_most(float(usual.alarms), 1, "", f"{requests} normal requests of one client"),
        "false alarms, drifted": at_most(
            float(drifted.alarms),
            max(1.0, (FALSE_ALARMS + CLIENT_FALSE_ALARMS) * requests),
            "",
            f"{requests} requests of one client, escalating {1 + ALLOWANCE} times as often, the most that is normal",
        ),
        "cascaded": reported(usual.cascaded, "of normal requests", "the others wait for tokens"),
        "guard": reported(usual.microseconds, "µs a request", "allows and observe together"),
    }
    named = {**told, "normal": usual, "drifted": drifted, "among others": others}
    samples = {
        name: {
            "alarm_after": one.alarm_after,
            "alarms": one.alarms,
            "mean": float(one.costs.mean()),
            "worst_window": one.worst_window,
            "cascaded": one.cascaded,
        }
        for name, one in named.items()
    }
    return figures, {**samples, "alarm after normal traffic": [one.alarm_after for one in late]}


def _late(terms: Terms, seed: int) -> Told:
    """An attack on a guard that has seen normal traffic."""
    guard = Guard()
    send(normal(terms.share, seed), AFTER, terms, guard)
    return send(many_names, 2 * WINDOW, terms, guard)
