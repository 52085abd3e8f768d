"""Other processes on the engine's core: how the choice moves, and how it returns."""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from wenet_trainer.demo.daemon import Answer, Client

BEFORE_S, DURING_S, AFTER_S = 3.0, 6.0, 6.0
PROCESSES = 3
SLICE_S = 1.0


@dataclass(frozen=True)
class Slice:
    """One second of requests. `met_share` counts a refusal as a miss."""

    start_s: float
    loaded: bool
    requests: int
    modes: dict[str, int]
    latency_ms: float
    met_share: float
    slowdown: float


def _burn(core: int) -> None:
    os.sched_setaffinity(0, {core})
    number = 1.0
    while True:
        number = number * 1.0000001 % 10.0


@contextmanager
def load(core: int, processes: int = PROCESSES) -> Iterator[None]:
    """Keep a core busy with other processes."""
    context = multiprocessing.get_context("spawn")
    hogs = [context.Process(target=_burn, args=(core,), daemon=True) for _ in range(processes)]
    for hog in hogs:
        hog.start()
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.join()


def timeline(client: Client, pngs: Sequence[bytes], budget_ms: float, core: int) -> list[Slice]:
    """Post images one after another under one budget: alone, under load, alone again."""
    began = time.monotonic()
    slices: list[Slice] = []
    slices += _phase(client, pngs, budget_ms, began, BEFORE_S, loaded=False)
    with load(core):
        time.sleep(1.0)  # the processes start up
        slices += _phase(client, pngs, budget_ms, began, DURING_S, loaded=True)
    slices += _phase(client, pngs, budget_ms, began, AFTER_S, loaded=False)
    return slices


def _phase(
    client: Client, pngs: Sequence[bytes], budget_ms: float, began: float, seconds: float, *, loaded: bool
) -> list[Slice]:
    slices = []
    end = time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        answers: list[Answer] = []
        while time.monotonic() < start + SLICE_S:
            answers.append(client.post(pngs[len(answers) % len(pngs)], budget_ms=budget_ms))
        slices.append(_slice(answers, start - began, loaded, float(client.modes()["slowdown"])))
    return slices


def _slice(answers: Sequence[Answer], start_s: float, loaded: bool, slowdown: float) -> Slice:
    latencies = sorted(answer.client_ms for answer in answers)
    return Slice(
        start_s=start_s,
        loaded=loaded,
        requests=len(answers),
        modes=dict(Counter(answer.mode or "refused" for answer in answers).most_common()),
        latency_ms=latencies[len(latencies) // 2],
        met_share=sum(answer.met is True for answer in answers) / len(answers),
        slowdown=slowdown,
    )
