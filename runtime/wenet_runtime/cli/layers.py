"""`profile --layers` and `--check`: measures the layer table, and tells how well it predicts whole modes."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional

import numpy as np

from wenet_runtime.cli.ends import say
from wenet_runtime.cli.progress import Shown, progress_shown
from wenet_runtime.errors import SettingsError

if TYPE_CHECKING:  # onnx loads only when something is measured
    from wenet_runtime.layer_table import LayerTable
    from wenet_runtime.service.layer_bench import LayerBench
    from wenet_runtime.settings import Settings

CHECKED = 20  # random whole modes


def check_asked(settings: "Settings", table: Optional[str], out: Optional[str], *, measure: bool) -> None:
    """Refuse what cannot be measured, and a table that cannot be used here, before anything is measured.

    Args:
        settings: engine, threads and bundle.
        table: the file; the one in the cache if None.
        out: the file of what is printed.
        measure: whether the table is to be measured, or must be there.

    Raises:
        SettingsError: the engine or the threads, or `out` is the table's file.
        EngineError, BundleError: the table is missing, damaged, unfinished, another network's, device's or plan's;
            where it is to be measured, what lies there may not be gone on with or replaced.
    """
    from wenet_runtime.layer_profiler import kept_table
    from wenet_runtime.layer_table import check_table, read_table
    from wenet_runtime.service.layer_bench import open_layer_bench

    bench = open_layer_bench(settings)
    try:
        path = _path(bench, table)
        if out is not None and Path(out).resolve() == path.resolve():
            raise SettingsError(f"--out is '{out}', where the layer table lies: name another file")
        if measure:
            kept_table(path, bench.supernet, bench.device)
        else:
            check_table(read_table(path), bench.supernet, bench.device, bench.plan_id)
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
            with progress_shown() as shown:
                found = profile_layers(
                    bench.supernet,
                    bench.backend,
                    emitted=bench.emitted,
                    device=bench.device,
                    path=path,
                    model=bench.model,
                    meter=bench.meter,
                    plan_id=bench.plan_id,
                    progress=partial(_measuring, shown),
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


def _measuring(shown: Shown, done: int, total: int) -> None:
    shown("measuring configurations of at most", done, total)


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
        "timing": found.timing,
        "plan": found.plan_id,
        "drift": found.drift,
        "warning": found.warning,
    }


def _tell_table(found: "LayerTable", path: Path, *, old: bool) -> None:
    if old:
        say(f"this table was finished at {found.measured_at}; to measure it again, remove {path}")
    if found.warning is not None:
        say(f"warning: {found.warning}")
    state = _state(found)
    if state:
        say(f"while it was measured: {state}")
    say(
        f"layer table: {path}, {len(found.rows)} configurations, each predicted from the others with an error of "
        f"{found.error.median:.1%} (median), {found.error.p95:.1%} (95th percentile)"
    )


def _state(found: "LayerTable") -> str:
    """The quickest core's clock and the hottest zone's temperature, where the system tells them."""
    start, end = found.conditions_at_start, found.conditions_at_end
    parts = []
    if start.clock_mhz is not None and end.clock_mhz is not None:
        parts.append(f"{start.clock_mhz:.0f} MHz at the start, {end.clock_mhz:.0f} MHz at the end")
    if start.temperature_c is not None and end.temperature_c is not None:
        parts.append(f"{start.temperature_c:.0f} °C at the start, {end.temperature_c:.0f} °C at the end")
    return "; ".join(parts)


def _checked(bench: "LayerBench", found: "LayerTable") -> Dict[str, Any]:
    """Predict and measure whole modes, telling each."""
    from wenet_runtime.layer_check import check_layers, error_summary
    from wenet_runtime.table_bench import DRIFT

    with progress_shown() as shown:
        checked = check_layers(
            found,
            bench.supernet,
            bench.backend,
            emitted=bench.emitted,
            count=CHECKED,
            progress=partial(shown, "measuring whole modes"),
        )
    rows = []
    for number, one in enumerate(checked, 1):
        figures = f"predicted {one.predicted_ms:.4g} ms, measured {one.measured_ms:.4g} ms ({one.error:+.1%})"
        say(f"mode {number}: {figures}")
        rows.append({"groups": dict(one.groups), "predicted_ms": one.predicted_ms, "measured_ms": one.measured_ms})
    if not checked:
        say("nothing to check: the table has seen every configuration of this network")
        return {"modes": rows, "error": None, "full_ms": None}
    error = error_summary(checked)
    say(f"{len(checked)} random modes: error {error.median:.1%} (median), {error.p95:.1%} (95th percentile)")
    full_ms = float(np.median([one.full_ms for one in checked]))
    moved = full_ms / found.full_ms - 1
    say(f"the full network takes {full_ms:.4g} ms now, {found.full_ms:.4g} ms in the table ({moved:+.1%})")
    if abs(moved) > DRIFT:
        say("warning: times here are not those of the table any more; its shares of the full network's may still be")
    return {"modes": rows, "error": asdict(error), "full_ms": full_ms}
