"""Other processes on the engine's core: how the choice moves, and how it returns."""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from wenet_trainer.demo.daemon import Answer, Client

BEFORE_S, DURING_S, PINNED_S, AFTER_S = 3.0, 6.0, 2.0, 5.0
PROCESSES = 3
SLICE_S = 1.0
BURST_S, PAUSE_S = 0.3e-3, 0.05e-3


@dataclass(frozen=True)
class Slice:
    """One second of requests. `state` says what the core was doing; `met_share` counts a refusal as a miss."""

    start_s: float
    state: str
    requests: int
    modes: dict[str, int]
    latency_ms: float
    met_share: float
    slowdown: float


def _burn(core: int) -> None:
    """Work in short bursts, as a camera's or a network's process does, for ever.

    Each waking takes the core from a running inference. Processes that never sleep would rather delay
    the engine's own waking, by whole time slices, and no choice of a mode could mend that.
    """
    os.sched_setaffinity(0, {core})
    while True:
        end = time.perf_counter() + BURST_S
        while time.perf_counter() < end:
            pass
        time.sleep(PAUSE_S)


@contextmanager
def load(core: int, processes: int = PROCESSES) -> Iterator[list[int]]:
    """Keep a core busy with other processes, whose ids it yields."""
    context = multiprocessing.get_context("spawn")
    hogs = [context.Process(target=_burn, args=(core,), daemon=True) for _ in range(processes)]
    for hog in hogs:
        hog.start()
    try:
        yield [hog.pid for hog in hogs if hog.pid is not None]
    finally:
        for hog in hogs:
            hog.kill()
            hog.join()


def timeline(client: Client, pngs: Sequence[bytes], budget_ms: float, *, core: int, full: str) -> list[Slice]:
    """Post images one after another under one budget: alone, under load, alone again.

    Still under load, the `full` mode is pinned for a while: what a server without modes would do.
    """
    began = time.monotonic()

    def phase(seconds: float, state: str, mode: str | None = None) -> list[Slice]:
        return _phase(client, pngs, began=began, seconds=seconds, state=state, budget_ms=budget_ms, mode=mode)

    slices = phase(BEFORE_S, "free")
    with load(core):
        time.sleep(1.0)  # the processes start up
        slices += phase(DURING_S, "LOADED")
        slices += phase(PINNED_S, f"LOADED, {full} pinned", full)
    return slices + phase(AFTER_S, "free")


def _phase(
    client: Client,
    pngs: Sequence[bytes],
    *,
    began: float,
    seconds: float,
    state: str,
    budget_ms: float,
    mode: str | None,
) -> list[Slice]:
    slices = []
    end = time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        answers: list[Answer] = []
        while time.monotonic() < start + SLICE_S:
            answers.append(client.post(pngs[len(answers) % len(pngs)], budget_ms=budget_ms, mode=mode))
        slices.append(_slice(answers, start - began, state, float(client.modes()["slowdown"])))
    return slices


def _slice(answers: Sequence[Answer], start_s: float, state: str, slowdown: float) -> Slice:
    latencies = sorted(answer.client_ms for answer in answers)
    return Slice(
        start_s=start_s,
        state=state,
        requests=len(answers),
        modes=dict(Counter(answer.mode or "refused" for answer in answers).most_common()),
        latency_ms=latencies[len(latencies) // 2],
        met_share=sum(answer.met is True for answer in answers) / len(answers),
        slowdown=slowdown,
    )
