"""`layers.json`: what every weight-enabled layer costs on one device, from whole networks that were measured there."""

import dataclasses
import hashlib
import json
import math
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
from wenet_runtime.table_rows import Row, TableError, impossible

FORMAT = "wenet-layer-table"
FORMAT_VERSION = 1
MAX_BYTES = 64 << 20


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
        energy_source: the meter.
        error, energy_error: every row, predicted from the others.
        drift: how far the full network's time moved from the first rows', as a share at its most.
        rows: what was measured.
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


def check_table(table: LayerTable, supernet: Supernet, device: Optional[Device] = None) -> None:
    """Whether a table may be used for a network, and on a device.

    Args:
        table: the table.
        supernet: the network whose configurations shall be predicted.
        device: what they shall run on; None when the table's device is meant, wherever this runs.

    Raises:
        BundleError: it is another network's.
        EngineError: it is another device's, or unfinished.
    """
    if table.supernet_id != supernet_id(supernet):
        raise BundleError(
            f"this layer table was measured on another network ('{table.model}', {table.supernet_id[:12]}): "
            f"{_difference(table, supernet)}; measure this one with `wenet-runtime profile --layers`"
        )
    if device is not None and table.device != device:
        mine, its = dataclasses.asdict(device), dataclasses.asdict(table.device)
        names = ", ".join(f"{name} is {mine[name]} and not {its[name]}" for name in mine if mine[name] != its[name])
        raise EngineError(
            f"this layer table was measured on another device: {names}; measure here with "
            "`wenet-runtime profile --layers`"
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
        if path.stat().st_size > MAX_BYTES:
            raise EngineError(f"{path} is larger than {MAX_BYTES} bytes and no layer table: {again}")
        members = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except FileNotFoundError:
        raise EngineError(f"no layer table at {path}: measure one with `wenet-runtime profile --layers`") from None
    except OSError as error:
        raise EngineError(f"cannot read the layer table {path} ({error.strerror})") from None
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
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EngineError(f"the layer table {path}: '{where}': {first['msg']}: {again}") from None
    wrong = _impossible(table)
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
        raise BundleError(f"the layer table lacks {_few(unknown)}: it was measured on another network")
    return cost.of(groups)


def _difference(table: LayerTable, supernet: Supernet) -> str:
    """What tells the network from the table's, in words."""
    own = {layer.name: tuple(layer.groups) for layer in supernet.layers}
    its = {name: tuple(sorted(levels)) for name, levels in table.latency.terms.items()}
    lacking, strange = sorted(set(own) - set(its)), sorted(set(its) - set(own))
    found = []
    if lacking:
        found.append(f"the table lacks {_few(lacking)}")
    if strange:
        found.append(f"it has {_few(strange)}, which this network lacks")
    other = [name for name in own if name in its and own[name] != its[name]]
    if other:
        found.append(f"layer '{other[0]}' has groups {own[other[0]]} and not {its[other[0]]}")
    if table.inputs != supernet.inputs:
        shapes = [" × ".join(map(str, spec.shape[1:])) for one in (supernet, table) for spec in one.inputs[:1]]
        found.append(f"its input is {shapes[-1]}, this network's is {shapes[0]}")
    return "; ".join(found) or "shapes or connections differ"


def _few(names: List[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"layer{'s' if len(names) > 1 else ''} " + ", ".join(f"'{name}'" for name in names[:3]) + more


def _impossible(table: LayerTable) -> Optional[str]:
    """What in a table cannot have been measured, in words; None when all may have been."""
    if not table.rows:
        return "it holds no row"
    layers = table.latency.terms
    for number, row in enumerate(table.rows):
        wrong = impossible(row, layers)
        if wrong is not None:
            return f"row {number} {wrong}"
    for cost in (table.latency, table.energy):
        if cost is None:
            continue
        pairs = [(pair.first, pair.second) for pair in cost.pairs]
        if cost.terms.keys() != layers.keys() or not {name for pair in pairs for name in pair} <= set(layers):
            return "its terms are of different layers"
        figures = [one for levels in cost.terms.values() for one in levels.values()]
        figures += [one for pair in cost.pairs for one in pair.costs.values()]
        if not all(map(math.isfinite, (cost.full, *figures))) or cost.full <= 0:
            return "a term is no finite number"
    return None
