"""Measures a layer table: whole configurations, until those measured predict one another well.

Ratios to the full network make rows comparable when the machine drifts, and a whole network is the only context
in which a layer costs what it will cost.
"""

import itertools
import time
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Callable, Optional, Sequence

import numpy as np

from wenet_runtime.conditions import Conditions, read_conditions
from wenet_runtime.device import Device
from wenet_runtime.engines.base import Backend
from wenet_runtime.errors import BundleError, EngineError
from wenet_runtime.layer_table import LayerTable, check_table, read_table, supernet_id, write_table
from wenet_runtime.materialize import Supernet
from wenet_runtime.meters.base import Meter
from wenet_runtime.table_bench import DRIFT, ROUNDS, TIMING, WAIT_S, WAITS, Emitted, Progress, TableBench
from wenet_runtime.table_design import configurations
from wenet_runtime.table_fit import Fitted, fit
from wenet_runtime.table_rows import Row, TableError
from wenet_runtime.table_terms import Terms, terms_of

MOST_ROWS = 160
LEAST_ROWS = 40  # fewer say little about how well they predict
EVERY = 20  # rows between two fits
TARGET = 0.02


def profile_layers(
    supernet: Supernet,
    backend: Backend,
    *,
    emitted: Emitted,
    device: Device,
    path: Path,
    model: str = "",
    meter: Optional[Meter] = None,
    plan_id: str = "tuned",
    rounds: int = ROUNDS,
    most_rows: int = MOST_ROWS,
    target: float = TARGET,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    conditions: Callable[[], Conditions] = read_conditions,
    pause: Callable[[float], None] = time.sleep,
) -> LayerTable:
    """Measure configurations until they predict one another well, and fit the table.

    Every row is kept in `path` as soon as it is measured; a call that finds a file of this network and device
    there goes on where it ended. A file that was timed in another way, or with layers emitted otherwise, or with
    another meter or none although this one answers now, finished or not, gives no row: all is measured anew, and
    the file is replaced by the first new row. Without a meter a table that has energy is kept as it is.

    Args:
        supernet: the network.
        backend: the engine that will serve.
        emitted: with how many groups a configuration's layers are computed, where not with their own.
        device: what this is; stands in the table.
        path: the table's file.
        model: the network's name, for people.
        meter: where energy comes from, if anything tells.
        plan_id: names what `emitted` follows; see `tuner.plan_id`.
        rounds: runs behind a row at least; four times as many at most.
        most_rows: configurations measured at most.
        target: enough is measured when the median relative error of a row predicted from all others lies below
            this with 97.5 % confidence.
        seed: of the configurations and the order of runs; of a table that is gone on with, its own.
        progress: told (rows, `most_rows`) after every row that is kept.
        conditions: reads clocks and temperatures.
        pause: waits, in seconds.

    Raises:
        EngineError: a network cannot be built or run, the file cannot be written, or it is another device's.
        BundleError: the file is another network's.
    """
    if most_rows < 1 or rounds < 1 or not target > 0:
        raise EngineError(f"a layer table needs rows, rounds and a target above 0, not {most_rows}, {rounds}, {target}")
    terms = terms_of(supernet)
    if not any(len(layer.groups) > 1 for layer in terms.layers):
        raise BundleError("this network has no layer whose groups may be chosen: there is nothing to measure")
    bench_of = partial(TableBench, supernet, backend, emitted, rounds=rounds, meter=meter)
    table = kept_table(path, supernet, device)
    if table is not None and (_means_another(table, plan_id) or _lacks_energy(table, meter, bench_of)):
        table = None
    if table is not None and table.finished and _enough(table.error, table.rows, target, most_rows):
        return table
    rows = [] if table is None else list(table.rows)
    seed = seed if table is None else table.seed
    known = {terms.key(row.groups) for row in rows}
    left = (groups for groups in configurations(terms, seed) if terms.key(groups) not in known)
    at_start, started_at = (conditions(), _now()) if table is None else (table.conditions_at_start, table.started_at)
    warning = None if table is None else table.warning
    source = "none" if table is None else table.energy_source
    if source == "none" and meter is not None:
        source = meter.source

    def fitted(*, finished: bool) -> LayerTable:
        return _table(
            supernet, terms, rows, device=device, model=model, source=source, plan_id=plan_id, seed=seed,
            started_at=started_at, at_start=at_start, at_end=conditions(), finished=finished, warning=warning,
        )  # fmt: skip

    with closing(bench_of(seed=seed)) as bench:
        for groups in itertools.islice(left, max(0, most_rows - len(rows))):
            if table is not None and len(rows) % EVERY == 0 and _enough(table.error, rows, target, most_rows):
                break  # here, so that a table that is gone on with ends where one in a single go does
            if rows and warning is None and not bench.settled(first_ms(rows), pause):
                warning = (
                    f"the full network's time stayed more than {DRIFT:.0%} from the first rows' at row {len(rows)}, "
                    f"{WAIT_S * WAITS:.0f} s of waiting included: clocks may have changed while this was measured"
                )
            rows.append(bench.row(groups, len(rows)))
            if table is None or len(rows) % EVERY == 0 or len(rows) < EVERY:
                table = fitted(finished=False)
            table = replace(table, rows=tuple(rows), warning=warning, finished=False)
            write_table(path, table)
            progress(len(rows), most_rows)
    if table is not None and table.finished:
        return table  # every configuration there is was measured before
    table = fitted(finished=True)
    write_table(path, table)
    return table


def kept_table(path: Path, supernet: Supernet, device: Device) -> Optional[LayerTable]:
    """The table that lies there, finished or not, of this network and device; None when there is none.

    Raises:
        BundleError, EngineError: the file is none that may be gone on with or replaced.
    """
    if not path.exists():
        return None
    try:
        table = read_table(path)
        check_table(replace(table, finished=True), supernet, device)
    except (BundleError, EngineError) as error:
        raise type(error)(f"{path} cannot be gone on with: {error}, into another file, or remove this one") from None
    return table


def _means_another(table: LayerTable, plan_id: str) -> bool:
    return (table.timing, table.plan_id) != (TIMING, plan_id)


def _lacks_energy(table: LayerTable, meter: Optional[Meter], bench_of: Callable[..., TableBench]) -> bool:
    """Whether the table lacks what the meter tells: a meter that answers nothing is no reason to measure again."""
    if meter is None or meter.source in ("none", table.energy_source):
        return False
    with closing(bench_of(seed=table.seed)) as bench:
        return bench.meter_answers()


def _table(
    supernet: Supernet,
    terms: Terms,
    rows: Sequence[Row],
    *,
    device: Device,
    model: str,
    source: str,
    plan_id: str,
    seed: int,
    started_at: str,
    at_start: Conditions,
    at_end: Conditions,
    finished: bool,
    warning: Optional[str],
) -> LayerTable:
    """The table that these rows make."""
    full_ms = float(np.median([row.full_ms for row in rows]))
    latency = fit(terms, [row.groups for row in rows], [row.ratio for row in rows], full_ms)
    energy = _energy(terms, rows)
    started_ms = first_ms(rows)
    drift = max(abs(row.full_quiet_ms / started_ms - 1) for row in rows)
    if finished and warning is None and drift > DRIFT:
        warning = f"the full network's time moved by {drift:.0%} from the first rows': something else may have run"
    return LayerTable(
        supernet_id=supernet_id(supernet),
        model=model,
        inputs=supernet.inputs,
        device=device,
        started_at=started_at,
        measured_at=_now(),
        conditions_at_start=at_start,
        conditions_at_end=at_end,
        full_ms=full_ms,
        latency=latency.cost,
        energy=None if energy is None else energy.cost,
        energy_source=source if any(map(_told, rows)) else "none",
        error=TableError.of(latency.errors),
        energy_error=None if energy is None else TableError.of(energy.errors),
        drift=drift,
        rows=tuple(rows),
        timing=TIMING,
        plan_id=plan_id,
        seed=seed,
        finished=finished,
        warning=warning,
    )


def _energy(terms: Terms, rows: Sequence[Row]) -> Optional[Fitted]:
    """The energy of any configuration; None unless a meter answered at most rows."""
    known = [row for row in rows if _told(row)]
    if 2 * len(known) <= len(rows):
        return None
    full_mj = float(np.median([row.full_energy_mj for row in known if row.full_energy_mj]))
    ratios = [row.energy_mj / row.full_energy_mj for row in known if row.energy_mj and row.full_energy_mj]
    return fit(terms, [row.groups for row in known], ratios, full_mj)


def _told(row: Row) -> bool:
    """Whether the meter answered."""
    return bool(row.energy_mj and row.full_energy_mj)


def _enough(error: TableError, rows: Sequence[Row], target: float, most_rows: int) -> bool:
    return len(rows) >= most_rows or (len(rows) >= LEAST_ROWS and error.median_high <= target)


def first_ms(rows: Sequence[Row]) -> float:
    """The full network's quiet time when measuring began."""
    return float(np.median([row.full_quiet_ms for row in rows[:3]]))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
