"""How far is the layer table's prediction from a measured whole mode?"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.arms import INPUT as SMALL
from benchmarks.common import Arguments, Figure, Measured, at_most, reported, run
from benchmarks.networks import make_torch, uniform
from wenet_runtime.device import this_device
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.layer_check import Checked, check_layers, compare, error_summary
from wenet_runtime.layer_profiler import MOST_ROWS, profile_layers
from wenet_runtime.layer_table import LayerTable
from wenet_runtime.plan import Plan
from wenet_runtime.profiler import quickest_ms
from wenet_runtime.table_bench import ROUNDS
from wenet_trainer.models.small_resnet import SmallResNet
from wenet_trainer.topology import describe

QUESTION = "How far is the layer table's prediction from a measured whole mode?"
LEVELS = (2, 4, 8, 16)
HELD_OUT = 20
MEDIAN, P95 = 0.05, 0.10


@dataclass(frozen=True)
class Case:
    """A network with random weights, which its latency does not depend on, and its input (C, H, W)."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, int, int]


CASES = (
    Case("small_resnet", SmallResNet, SMALL),
    Case("resnet50", partial(make_torch, "resnet50"), (3, 224, 224)),
    Case("mobilenet_v2", partial(make_torch, "mobilenet_v2"), (3, 224, 224)),
)


def measure(arguments: Arguments) -> Measured:
    """Make every network's table, then check it; about ten minutes on two cores."""
    figures: dict[str, Figure] = {}
    samples: dict[str, Any] = {}
    for case in CASES[:1] if arguments.quick else CASES:
        with tempfile.TemporaryDirectory(prefix="wenet-table-") as folder:
            found, samples[case.name] = _case(case, Path(folder) / "layers.json", arguments)
        figures.update({f"{case.name}: {name}": figure for name, figure in found.items()})
    return figures, samples


def _case(case: Case, path: Path, arguments: Arguments) -> tuple[dict[str, Figure], dict[str, Any]]:
    """One table and its check: ONNX Runtime, one thread, batch 1, layers emitted as measured to be quickest."""
    supernet = describe(case.make().eval(), case.shape)
    backend = OrtBackend()
    plan = Plan(supernet, None if arguments.quick else partial(quickest_ms, backend))
    rounds = 2 if arguments.quick else ROUNDS
    start = time.perf_counter()
    table = profile_layers(
        supernet,
        backend,
        emitted=plan.emitted,
        device=this_device(backend.name, backend.version, 1),
        path=path,
        model=case.name,
        rounds=rounds,
        most_rows=5 if arguments.quick else MOST_ROWS,
        seed=arguments.seed,
    )
    seconds = time.perf_counter() - start
    count = 2 if arguments.quick else HELD_OUT
    bench = (table, supernet, backend)
    seed = arguments.seed + 1
    held_out = check_layers(*bench, emitted=plan.emitted, count=count, rounds=rounds, seed=seed)
    chosen = [uniform(supernet, level) for level in LEVELS]
    uniforms = compare(*bench, chosen, emitted=plan.emitted, rounds=rounds, seed=seed)
    samples = {
        "held out": _samples(held_out),
        "uniform": _samples(uniforms),
        "cross-validated": {"median": table.error.median, "p95": table.error.p95},
        "full_ms": table.full_ms,
        "drift": table.drift,
        "warning": table.warning,
    }
    return _figures(table, held_out, uniforms, seconds, quick=arguments.quick), samples


def _figures(
    table: LayerTable, held_out: Sequence[Checked], uniforms: Sequence[Checked], seconds: float, *, quick: bool
) -> dict[str, Figure]:
    error = error_summary(held_out)
    how = f"{error.rows} random modes that were not measured for the table, of {table.full_ms:.3g} ms at most"
    judged = (error.median, MEDIAN, "median error"), (error.p95, P95, "95th percentile of the error")
    return {
        **{name: reported(value, "", how) if quick else at_most(value, goal, "", how) for value, goal, name in judged},
        "largest error of a uniform mode": reported(
            max(abs(one.error) for one in uniforms), "", f"at {', '.join(map(str, LEVELS))} groups, measured again"
        ),
        "rows": reported(len(table.rows), "modes", "measured for the table, each beside the full network"),
        "time": reported(seconds, "s", "to measure the table, the choice of emitted groups included"),
    }


def _samples(checked: Sequence[Checked]) -> list[dict[str, float]]:
    return [{"predicted_ms": round(one.predicted_ms, 4), "measured_ms": round(one.measured_ms, 4)} for one in checked]


if __name__ == "__main__":
    run("table_error", QUESTION, measure, needs_bundle=False)
