"""`profile --layers` and `--check`: measures the layer table, and tells how well it predicts whole modes."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional

from wenet_runtime.cli.ends import progress, say

if TYPE_CHECKING:  # onnx loads only when something is measured
    from wenet_runtime.layer_table import LayerTable
    from wenet_runtime.service.layer_bench import LayerBench
    from wenet_runtime.settings import Settings

CHECKED = 20  # random whole modes
TELL_EVERY = 20


def check_asked(settings: "Settings", table: Optional[str], *, measure: bool) -> None:
    """Refuse what cannot be measured, and a table that cannot be used here, before anything is measured.

    Args:
        settings: engine, threads and bundle.
        table: the file; the one in the cache if None.
        measure: whether the table is to be measured, or must be there.

    Raises:
        SettingsError: the engine or the threads.
        EngineError, BundleError: the table is missing, damaged, unfinished, another network's or another device's.
    """
    from wenet_runtime.layer_table import check_table, read_table
    from wenet_runtime.service.layer_bench import open_layer_bench

    bench = open_layer_bench(settings)
    try:
        if not measure:
            check_table(read_table(_path(bench, table)), bench.supernet, bench.device)
    finally:
        bench.close()


def layer_table(settings: "Settings", table: Optional[str], *, measure: bool, check: bool) -> Dict[str, Any]:
    """Measure the layer table, try it, or both.

    Returns:
        What is printed: `layers` describes the table, `check` each mode that was predicted and measured.
    """
    from wenet_runtime.layer_profiler import profile_layers
    from wenet_runtime.layer_table import read_table
    from wenet_runtime.service.layer_bench import open_layer_bench

    bench = open_layer_bench(settings)
    path = _path(bench, table)
    try:
        before = read_table(path).measured_at if path.exists() else None
        if measure:
            found = profile_layers(
                bench.supernet,
                bench.backend,
                emitted=bench.emitted,
                device=bench.device,
                path=path,
                model=bench.model,
                meter=bench.meter,
                progress=_measuring,
            )
        else:
            found = read_table(path)
        members = {"layers": _described(found, path)}
        _tell_table(found, path, old=measure and found.measured_at == before)
        if check:
            members["check"] = _checked(bench, found)
        return members
    finally:
        bench.close()


def _measuring(done: int, total: int) -> None:
    """Minutes may pass here, so a line comes now and then also where it cannot be shown in place."""
    progress("measuring configurations", done, total)
    if not sys.stderr.isatty() and 0 < done < total and done % TELL_EVERY == 0:
        say(f"measuring configurations {done}/{total} at most")


def _path(bench: "LayerBench", table: Optional[str]) -> Path:
    return Path(table) if table else bench.path


def _described(found: "LayerTable", path: Path) -> Dict[str, Any]:
    return {
        "table": str(path),
        "started_at": found.started_at,
        "measured_at": found.measured_at,
        "conditions": {"start": asdict(found.conditions_at_start), "end": asdict(found.conditions_at_end)},
        "full_ms": found.full_ms,
        "rows": len(found.rows),
        "error": asdict(found.error),
        "energy_error": None if found.energy_error is None else asdict(found.energy_error),
        "energy_source": found.energy_source,
        "drift": found.drift,
        "warning": found.warning,
    }


def _tell_table(found: "LayerTable", path: Path, *, old: bool) -> None:
    if old:
        say(f"this table was finished at {found.measured_at}; to measure it again, remove {path}")
    if found.warning is not None:
        say(f"warning: {found.warning}")
    say(
        f"layer table: {path}, {len(found.rows)} configurations, each predicted from the others with an error of "
        f"{found.error.median:.1%} (median), {found.error.p95:.1%} (95th percentile)"
    )


def _checked(bench: "LayerBench", found: "LayerTable") -> Dict[str, Any]:
    """Predict and measure whole modes, telling each."""
    from wenet_runtime.layer_check import check_layers, error_summary

    checked = check_layers(
        found,
        bench.supernet,
        bench.backend,
        emitted=bench.emitted,
        count=CHECKED,
        progress=lambda done, total: progress("measuring whole modes", done, total),
    )
    rows = []
    for number, one in enumerate(checked, 1):
        figures = f"predicted {one.predicted_ms:.4g} ms, measured {one.measured_ms:.4g} ms ({one.error:+.1%})"
        say(f"mode {number}: {figures}")
        rows.append({"groups": dict(one.groups), "predicted_ms": one.predicted_ms, "measured_ms": one.measured_ms})
    if not checked:
        say("nothing to check: the table has seen every configuration of this network")
        return {"modes": rows, "error": None}
    error = error_summary(checked)
    say(f"{len(checked)} random modes: error {error.median:.1%} (median), {error.p95:.1%} (95th percentile)")
    return {"modes": rows, "error": asdict(error)}
