"""Why a layer table is refused: no regular file, figures that cannot have been measured, or another network's."""

import math
import os
import stat
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple

from wenet_runtime.additive import AdditiveCost
from wenet_runtime.bundle import TensorSpec
from wenet_runtime.materialize import Supernet
from wenet_runtime.table_rows import Row, impossible


def regular_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file of at most so many bytes; nothing else is read, and none of it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a pipe, a device or a folder, or larger.
    """
    # A pipe that nobody writes to must not be waited for.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is no regular file")
        data = file.read(most + 1) if found.st_size <= most else None
    if data is None or len(data) > most:
        raise ValueError(f"is larger than {most} bytes")
    return data


def difference(cost: AdditiveCost, inputs: Sequence[TensorSpec], supernet: Supernet) -> str:
    """What tells a network from the one that a table is of, in words; empty where layers, groups and inputs agree.

    Args:
        cost: the table's.
        inputs: what it was measured with.
        supernet: the network.
    """
    own = {layer.name: tuple(layer.groups) for layer in supernet.layers}
    its = {name: tuple(sorted(levels)) for name, levels in cost.terms.items()}
    lacking, strange = sorted(set(own) - set(its)), sorted(set(its) - set(own))
    found = []
    if lacking:
        found.append(f"the table lacks {few(lacking)}")
    if strange:
        found.append(f"it has {few(strange)}, which this network lacks")
    other = [name for name in own if name in its and own[name] != its[name]]
    if other:
        found.append(f"layer '{other[0]}' has groups {own[other[0]]} and not {its[other[0]]}")
    if tuple(inputs) != supernet.inputs:
        shapes = [" × ".join(map(str, spec.shape[1:])) for one in (supernet.inputs, inputs) for spec in one[:1]]
        found.append(f"its input is {shapes[-1]}, this network's is {shapes[0]}")
    return "; ".join(found)


def few(names: List[str]) -> str:
    """Names of layers, three at most."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"layer{'s' if len(names) > 1 else ''} " + ", ".join(f"'{name}'" for name in names[:3]) + more


def impossible_figures(latency: AdditiveCost, energy: Optional[AdditiveCost], rows: Sequence[Row]) -> Optional[str]:
    """What in a table that was read cannot have been measured, in words; None when all may have been."""
    if not rows:
        return "it holds no row"
    layers = latency.terms
    for number, row in enumerate(rows):
        wrong = impossible(row, layers)
        if wrong is not None:
            return f"row {number} {wrong}"
    for cost in (latency, energy):
        if cost is None:
            continue
        pairs = [(pair.first, pair.second) for pair in cost.pairs]
        if _levels(cost) != _levels(latency) or not {name for pair in pairs for name in pair} <= set(layers):
            return "its terms are of different layers or groups"
        figures = [one for levels in cost.terms.values() for one in levels.values()]
        figures += [one for pair in cost.pairs for one in pair.costs.values()]
        if not all(map(math.isfinite, (cost.full, *figures))) or cost.full <= 0:
            return "a term is no finite number"
    return None


def _levels(cost: AdditiveCost) -> Mapping[str, Tuple[int, ...]]:
    return {name: tuple(sorted(levels)) for name, levels in cost.terms.items()}
