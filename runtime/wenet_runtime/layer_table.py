"""`layers.json`: what every weight-enabled layer costs on one device, from whole networks that were measured there."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, List, Mapping, NoReturn, Optional, Tuple

from wenet_runtime.additive import AdditiveCost
from wenet_runtime.bundle import TensorSpec
from wenet_runtime.conditions import Conditions
from wenet_runtime.device import Device
from wenet_runtime.errors import BundleError, EngineError
from wenet_runtime.files import write_atomic
from wenet_runtime.materialize import Supernet
from wenet_runtime.table_checks import difference, few, impossible_figures, regular_bytes
from wenet_runtime.table_rows import Row, TableError

FORMAT = "wenet-layer-table"
FORMAT_VERSION = 2  # 1 timed every run with the caches full of the other network's numbers
MAX_BYTES = 64 << 20
MEASURE = "measure this one here with `wenet-runtime profile --layers`"


@dataclass(frozen=True)
class LayerTable:
    """The file's content.

    Attributes:
        supernet_id: of the network it belongs to; see `supernet_id`.
        model: its name, for people.
        inputs: what it was measured with, one image each.
        device: what it was measured on: processor, engine, its version, threads.
        started_at, measured_at: UTC, ISO 8601; of the first row and of the last.
        conditions_at_start, conditions_at_end: clocks and temperatures then.
        full_ms: the full network's time, the median over the rows.
        latency, energy: predict any configuration; energy is None where no meter answered.
        energy_source: the meter that answered; "none" where none did.
        error, energy_error: every row, predicted from the others.
        drift: how far the full network's quiet time moved from the first rows', as a share at its most.
        rows: what was measured.
        timing: how runs were timed; see `table_bench.TIMING`.
        plan_id: how layers were emitted; see `tuner.plan_id`.
        seed: of the configurations.
        finished: False while rows are being added.
        warning: a sentence when the figures may be off; None else.
    """

    supernet_id: str
    model: str
    inputs: Tuple[TensorSpec, ...]
    device: Device
    started_at: str
    measured_at: str
    conditions_at_start: Conditions
    conditions_at_end: Conditions
    full_ms: float
    latency: AdditiveCost
    energy: Optional[AdditiveCost]
    energy_source: str
    error: TableError
    energy_error: Optional[TableError]
    drift: float
    rows: Tuple[Row, ...]
    timing: str
    plan_id: str
    seed: int
    finished: bool
    warning: Optional[str] = None
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    @property
    def threads(self) -> int:
        """Of the engine."""
        return self.device.threads

    def latency_ms(self, groups: Mapping[str, int]) -> float:
        """What a configuration takes. Raises `BundleError` when the table lacks a layer or a count of it."""
        return _of(self.latency, groups)

    def energy_mj(self, groups: Mapping[str, int]) -> Optional[float]:
        """What a configuration needs; None where no meter answered. Raises as `latency_ms` does."""
        return None if self.energy is None else _of(self.energy, groups)


def supernet_id(supernet: Supernet) -> str:
    """Hex SHA-256 of all that a network's latency depends on, whatever its weights."""
    parts: List[Any] = [
        _wiring(supernet.topology),
        [dataclasses.asdict(spec) for spec in supernet.inputs],
        [dataclasses.asdict(layer) for layer in supernet.layers],
        [dataclasses.asdict(shuffle) for shuffle in supernet.shuffles],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def check_table(
    table: LayerTable, supernet: Supernet, device: Optional[Device] = None, plan_id: Optional[str] = None
) -> None:
    """Whether a table may be used for a network, and on a device.

    Args:
        table: the table.
        supernet: the network whose configurations shall be predicted.
        device: what they shall run on; None when the table's device is meant, wherever this runs.
        plan_id: how they shall be emitted; None for whatever the table's are.

    Raises:
        BundleError: it is another network's.
        EngineError: it is another device's or plan's, or unfinished.
    """
    differs = difference(table.latency, table.inputs, supernet)
    if differs or table.supernet_id != supernet_id(supernet):
        raise BundleError(
            f"this layer table was measured on another network ('{table.model}', {table.supernet_id[:12]}): "
            f"{differs or 'shapes or connections differ'}; {MEASURE}"
        )
    if device is not None and table.device != device:
        mine, its = dataclasses.asdict(device), dataclasses.asdict(table.device)
        names = ", ".join(f"{name} is {mine[name]} and not {its[name]}" for name in mine if mine[name] != its[name])
        raise EngineError(f"this layer table was measured on another device: {names}; {MEASURE}")
    if plan_id is not None and table.plan_id != plan_id:
        raise EngineError(
            f"this layer table was measured with layers emitted as '{table.plan_id}', here they are '{plan_id}': "
            f"set --tune or --no-tune as it was then, or {MEASURE}"
        )
    if not table.finished:
        raise EngineError(
            f"this layer table is unfinished ({len(table.rows)} configurations): run `wenet-runtime profile --layers` "
            "again, it goes on where it ended"
        )


def read_table(path: Path) -> LayerTable:
    """Read a table, finished or not. Raises `EngineError` naming it when it is missing, damaged or foreign."""
    from pydantic import ValidationError

    again = "measure it again with `wenet-runtime profile --layers`"
    try:
        data = regular_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        raise EngineError(f"no layer table at {path}: measure one with `wenet-runtime profile --layers`") from None
    except OSError as error:
        raise EngineError(f"cannot read the layer table {path} ({error.strerror})") from None
    except ValueError as error:
        raise EngineError(f"{path} {error}, and no layer table: {again}") from None
    try:
        members = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"the layer table {path} is not JSON ({error}): {again}") from None
    if not isinstance(members, dict) or members.get("format") != FORMAT:
        raise EngineError(f"{path} is no {FORMAT} file: name one that `wenet-runtime profile --layers` wrote")
    if members.get("format_version") != FORMAT_VERSION:
        raise EngineError(
            f"{path} has format version {members.get('format_version')!r}, this wenet-runtime reads "
            f"{FORMAT_VERSION}: {again}"
        )
    try:
        table: LayerTable = _adapter().validate_python(members)
        wrong = impossible_figures(table.latency, table.energy, table.rows)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EngineError(f"the layer table {path}: '{where}': {first['msg']}: {again}") from None
    except OverflowError:
        raise EngineError(f"the layer table {path} holds a number beyond all that is measured: {again}") from None
    if wrong is not None:
        raise EngineError(f"the layer table {path}: {wrong}: {again}")
    return table


def write_table(path: Path, table: LayerTable) -> None:
    """Write a table, at once or not at all. Raises `EngineError` when it cannot be written."""
    members = _adapter().dump_python(table, mode="json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(members, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise EngineError(f"cannot write the layer table {path} ({error.strerror}): name another file") from None


def _wiring(topology: bytes) -> List[Any]:
    """Operators, attributes, connections and sizes, but not who exported them with which version."""
    import onnx

    graph = onnx.load_from_string(topology).graph
    nodes = [
        [
            node.op_type,
            list(node.input),
            list(node.output),
            sorted(entry.SerializeToString(deterministic=True).hex() for entry in node.attribute),
        ]
        for node in graph.node
    ]
    values = [*graph.input, *graph.output]
    sizes = [[one.name, one.type.SerializeToString(deterministic=True).hex()] for one in values]
    numbers = [[one.name, list(one.dims), hashlib.sha256(one.raw_data).hexdigest()] for one in graph.initializer]
    return [nodes, sizes, numbers]


@lru_cache(maxsize=1)
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(LayerTable)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _of(cost: AdditiveCost, groups: Mapping[str, int]) -> float:
    for name, levels in cost.terms.items():
        if name not in groups:
            raise BundleError(f"no group count given for layer '{name}', which the layer table has")
        if groups[name] not in levels:
            raise BundleError(f"the layer table has layer '{name}' at {sorted(levels)} groups, not at {groups[name]}")
    unknown = sorted(set(groups) - set(cost.terms))
    if unknown:
        raise BundleError(f"the layer table lacks {few(unknown)}: it was measured on another network")
    return cost.of(groups)
