"""By what a search is told what configurations cost: this machine's table, other devices' tables, or measurements."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wenet_runtime.additive import AdditiveCost
from wenet_runtime.device import Device
from wenet_runtime.layer_table import LayerTable, check_table, read_table
from wenet_runtime.materialize import Supernet
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.problem import Cost
from wenet_trainer.space import GroupConfig


@dataclass(frozen=True)
class Route:
    """One device that modes are searched for.

    Attributes:
        device: its name in `frontier.json`.
        cost: of a configuration there.
        notes: what a person should know of its table.
        latency, energy: the additive table behind it; None where costs are measured, or energy is unknown.
    """

    device: str
    cost: Callable[[GroupConfig], Cost]
    latency: AdditiveCost | None = None
    energy: AdditiveCost | None = None
    notes: tuple[str, ...] = ()


def by_table(table: LayerTable, device: str) -> Route:
    """Go by a layer table."""

    def cost(config: GroupConfig) -> Cost:
        return Cost(table.latency_ms(config), None if table.energy is None else table.energy_mj(config))

    notes = () if table.warning is None else (f"the table of {device}: {table.warning}",)
    return Route(device, cost, table.latency, table.energy, notes)


def by_files(paths: tuple[Path, ...], supernet: Supernet) -> list[Route]:
    """Go by tables that `wenet-runtime profile --layers` wrote, each on its own device.

    Raises:
        ExploreError: two of them are of one device.
        WeNetError: one cannot be read, or belongs to another network.
    """
    routes: dict[str, Route] = {}
    devices: dict[Path, Device] = {}
    for path in paths:
        table = read_table(path)
        check_table(table, supernet, None)
        device = table.device
        same = next((other for other, known in devices.items() if known == device), None)
        if same is not None:
            raise ExploreError(f"{path} is of the same device as {same}: give one table of each")
        name = f"{path.stem}: {device.processor}, {device.threads} thread, {device.engine} {device.engine_version}"
        if name in routes:
            raise ExploreError(f"{path} and another table are both called '{path.stem}': rename one of the files")
        devices[path] = device
        routes[name] = by_table(table, name)
    return list(routes.values())
