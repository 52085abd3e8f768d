"""Checks a layer table against whole configurations that it has never seen."""

import itertools
from contextlib import closing
from dataclasses import dataclass
from typing import List, Mapping, Sequence

from wenet_runtime.engines.base import Backend
from wenet_runtime.layer_table import LayerTable, check_table
from wenet_runtime.materialize import Supernet
from wenet_runtime.table_bench import ROUNDS, Emitted, Progress, TableBench
from wenet_runtime.table_design import configurations
from wenet_runtime.table_rows import TableError
from wenet_runtime.table_terms import terms_of


@dataclass(frozen=True)
class Checked:
    """A configuration that was predicted and then measured.

    Attributes:
        measured_ms: its ratio to the full network's time, measured beside it, times the table's `full_ms`: what
            the machine drifted since the table was made is left out.
        full_ms: the full network's time beside it, which tells that drift.
    """

    groups: Mapping[str, int]
    predicted_ms: float
    measured_ms: float
    full_ms: float

    @property
    def error(self) -> float:
        """Of the prediction, as a share of the measured."""
        return self.predicted_ms / self.measured_ms - 1


def check_layers(
    table: LayerTable,
    supernet: Supernet,
    backend: Backend,
    *,
    emitted: Emitted,
    count: int = 20,
    rounds: int = ROUNDS,
    seed: int = 1,
    progress: Progress = lambda done, total: None,
) -> List[Checked]:
    """Predict and measure random configurations that the table has never seen.

    Args:
        table: of this network and this device.
        supernet, backend, emitted, rounds: as for `profile_layers`.
        count: configurations; fewer where the space has no more.
        seed: of the configurations.
        progress: told (checked, `count`).

    Raises:
        EngineError: a network cannot be built or run, or the table is unfinished.
        BundleError: the table is another network's.
    """
    check_table(table, supernet)
    terms = terms_of(supernet)
    known = {terms.key(row.groups) for row in table.rows}
    known.update(terms.key(terms.uniform(count)) for layer in terms.layers for count in layer.groups)
    unseen = (groups for groups in configurations(terms, seed) if terms.key(groups) not in known)
    chosen = list(itertools.islice(unseen, count))
    return compare(table, supernet, backend, chosen, emitted=emitted, rounds=rounds, seed=seed, progress=progress)


def compare(
    table: LayerTable,
    supernet: Supernet,
    backend: Backend,
    chosen: Sequence[Mapping[str, int]],
    *,
    emitted: Emitted,
    rounds: int = ROUNDS,
    seed: int = 1,
    progress: Progress = lambda done, total: None,
) -> List[Checked]:
    """Predict and measure these configurations; see `check_layers`."""
    check_table(table, supernet)
    predicted = [table.latency_ms(groups) for groups in chosen]
    found: List[Checked] = []
    with closing(TableBench(supernet, backend, emitted, rounds=rounds, meter=None, seed=seed)) as bench:
        for number, (groups, predicted_ms) in enumerate(zip(chosen, predicted)):
            row = bench.row(groups, number)
            found.append(Checked(groups, predicted_ms, row.ratio * table.full_ms, row.full_ms))
            progress(len(found), len(chosen))
    return found


def error_summary(checked: Sequence[Checked]) -> TableError:
    """The error over configurations that were checked; at least one."""
    return TableError.of([one.error for one in checked])
