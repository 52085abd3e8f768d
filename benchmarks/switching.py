"""What does a switch between resident modes add to a request, and what does the decision itself cost?"""

import time
from typing import Any

import numpy as np

from benchmarks.common import Arguments, Measured, at_most, run
from wenet_runtime.budget import Budget, Deadline, RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.canary import golden_inputs
from wenet_runtime.controller import Controller
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.pool import Pool
from wenet_runtime.profiler import measure as profile
from wenet_runtime.runtime import Runtime
from wenet_runtime.scheduler import Scheduler

QUESTION = "What does a switch between resident modes add to a request, and what does the decision cost?"


def measure(arguments: Arguments) -> Measured:
    """Time requests through the runtime: blocks that stay in a mode against blocks that alternate, interleaved."""
    bundle = Bundle(arguments.bundle)
    supernet = Supernet.of(bundle)
    backend = OrtBackend()
    pool = Pool(
        bundle, backend, lambda mode: backend.build(lower(supernet, mode.groups, bundle.statistics(mode)), mode.id)
    )
    inputs = golden_inputs(bundle, rows=1)
    profiles = profile(pool.engines, inputs, rounds=50)
    controller = Controller(bundle.modes, profiles)
    runtime = Runtime(pool, Scheduler(controller), NoMeter(), warmup=inputs)
    try:
        alternating, staying = _requests(arguments, runtime, inputs, [bundle.modes[0].id, bundle.modes[-1].id])
        decisions = _decisions(arguments, controller)
    finally:
        runtime.close()
    added = float(np.median(alternating) - np.median(staying))
    figures = {
        "switch_added_ms": at_most(
            added, 0.2, "ms", f"median of {len(alternating)} alternating requests minus {len(staying)} staying ones"
        ),
        "decision_p99_us": at_most(
            float(np.percentile(decisions, 99)), 100, "us", f"p99 of {len(decisions)} Controller.choose calls"
        ),
        "decision_p50_us": at_most(float(np.median(decisions)), 100, "us", "median of the same calls"),
    }
    samples = {"alternating_ms": alternating, "staying_ms": staying, "decision_us": decisions[:1000]}
    return figures, {"modes": len(bundle.modes), **samples}


def _requests(arguments: Arguments, runtime: Runtime, inputs: Any, pair: list[str]) -> tuple[list[float], list[float]]:
    """(alternating, staying) milliseconds of pinned requests, both over the same two modes.

    Blocks of twenty: A B A B … against ten A then ten B (its two switches are left out), in random
    order, so that drift of the machine falls on both.
    """
    order = np.random.default_rng(arguments.seed)
    wanted = 100 if arguments.quick else 1000
    alternating: list[float] = []
    staying: list[float] = []
    while len(alternating) < wanted or len(staying) < wanted:
        if order.random() < 0.5:
            alternating += [_one(runtime, inputs, pair[turn % 2]) for turn in range(20)]
        else:
            for mode_id in pair:
                staying += [_one(runtime, inputs, mode_id) for _ in range(11)][1:]
    return alternating, staying


def _one(runtime: Runtime, inputs: Any, mode_id: str) -> float:
    start_s = time.monotonic()
    runtime.submit(inputs, RequestOptions(mode=mode_id), start_s).result()
    return (time.monotonic() - start_s) * 1e3


def _decisions(arguments: Arguments, controller: Controller) -> list[float]:
    """Microseconds of single decisions under random budgets, all feasible or degraded, never refused."""
    budgets = np.random.default_rng(arguments.seed).uniform(0.5, 50, 500 if arguments.quick else 20_000)
    spent: list[float] = []
    for budget_ms in budgets:
        options = RequestOptions(Budget(latency_ms=float(budget_ms)), on_miss="late")
        now_s = time.monotonic()
        deadline = Deadline(now_s, options.effective_ms)
        start = time.perf_counter()
        controller.choose(options, deadline, rows=1, now_s=now_s)
        spent.append((time.perf_counter() - start) * 1e6)
    return spent


if __name__ == "__main__":
    run("switching", QUESTION, measure)
