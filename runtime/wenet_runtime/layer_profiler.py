"""Measures a layer table: whole configurations, until those measured predict one another well.

Ratios to the full network make rows comparable when the machine drifts, and a whole network is the only context
in which a layer costs what it will cost.
"""

import itertools
import time
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
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
from wenet_runtime.table_bench import DRIFT, ROUNDS, WAIT_S, WAITS, Emitted, Progress, TableBench
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
    there goes on where it ended.

    Args:
        supernet: the network.
        backend: the engine that will serve.
        emitted: with how many groups a configuration's layers are computed, where not with their own.
        device: what this is; stands in the table.
        path: the table's file.
        model: the network's name, for people.
        meter: where energy comes from, if anything tells.
        rounds: runs behind a row at least; four times as many at most.
        most_rows: configurations measured at most.
        target: enough is measured when the median relative error of a row predicted from all others lies below
            this with 97.5 % confidence.
        seed: of the configurations and the order of runs.
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
    table = _kept(path, supernet, device)
    if table is not None and table.finished and _enough(table.error, table.rows, target, most_rows):
        return table
    rows = [] if table is None else list(table.rows)
    known = {terms.key(row.groups) for row in rows}
    left = (groups for groups in configurations(terms, seed) if terms.key(groups) not in known)
    at_start, started_at = (conditions(), _now()) if table is None else (table.conditions_at_start, table.started_at)
    warning = None if table is None else table.warning

    def fitted(*, finished: bool) -> LayerTable:
        return _table(
            supernet, terms, rows, device=device, model=model, meter=meter, seed=seed, started_at=started_at,
            at_start=at_start, at_end=conditions(), finished=finished, warning=warning,
        )  # fmt: skip

    with closing(TableBench(supernet, backend, emitted, rounds=rounds, meter=meter, seed=seed)) as bench:
        for groups in itertools.islice(left, max(0, most_rows - len(rows))):
            if rows and warning is None and not bench.settled(first_ms(rows), pause):
                warning = (
                    f"the full network's time stayed more than {DRIFT:.0%} from the first rows' for "
                    f"{WAIT_S * WAITS:.0f} s at row {len(rows)}: clocks may have changed while this was measured"
                )
            rows.append(bench.row(groups, len(rows)))
            if table is None or len(rows) % EVERY == 0 or len(rows) < EVERY:
                table = fitted(finished=False)
            table = replace(table, rows=tuple(rows), warning=warning, finished=False)
            write_table(path, table)
            progress(len(rows), most_rows)
            if len(rows) % EVERY == 0 and _enough(table.error, rows, target, most_rows):
                break
    if table is not None and table.finished:
        return table  # every configuration there is was measured before
    table = fitted(finished=True)
    write_table(path, table)
    return table


def _kept(path: Path, supernet: Supernet, device: Device) -> Optional[LayerTable]:
    """The table that lies there, of this network and device; None when there is none."""
    if not path.exists():
        return None
    table = read_table(path)
    try:
        check_table(replace(table, finished=True), supernet, device)
    except (BundleError, EngineError) as error:
        raise type(error)(f"{path} cannot be gone on with: {error}, into another file, or remove this one") from None
    return table


def _table(
    supernet: Supernet,
    terms: Terms,
    rows: Sequence[Row],
    *,
    device: Device,
    model: str,
    meter: Optional[Meter],
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
        energy_source="none" if energy is None or meter is None else meter.source,
        error=TableError.of(latency.errors),
        energy_error=None if energy is None else TableError.of(energy.errors),
        drift=max(abs(row.full_ms / started_ms - 1) for row in rows),
        rows=tuple(rows),
        seed=seed,
        finished=finished,
        warning=warning,
    )


def _energy(terms: Terms, rows: Sequence[Row]) -> Optional[Fitted]:
    """The energy of any configuration; None unless a meter answered at most rows."""
    known = [row for row in rows if row.energy_mj and row.full_energy_mj]
    if 2 * len(known) <= len(rows):
        return None
    full_mj = float(np.median([row.full_energy_mj for row in known if row.full_energy_mj]))
    ratios = [row.energy_mj / row.full_energy_mj for row in known if row.energy_mj and row.full_energy_mj]
    return fit(terms, [row.groups for row in known], ratios, full_mj)


def _enough(error: TableError, rows: Sequence[Row], target: float, most_rows: int) -> bool:
    return len(rows) >= most_rows or (len(rows) >= LEAST_ROWS and error.median_high <= target)


def first_ms(rows: Sequence[Row]) -> float:
    """The full network's time when measuring began."""
    return float(np.median([row.full_ms for row in rows[:3]]))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
