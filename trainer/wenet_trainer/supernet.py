"""A supernet is any `nn.Module` with weight-enabled layers; here they are found, named and switched.

A network that is flexible in another way (`peers/`) says itself what it can be: see `Flexible`.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import ChannelShuffle, WeightEnabled
from wenet_trainer.norms import BatchNorm, SwitchableBatchNorm


@runtime_checkable
class Flexible(Protocol):
    """A network whose sub-networks are not weight-enabling patterns, but can be trained and compared alike.

    Attributes:
        levels: what may be chosen → its levels, ascending from 1 = the full network; a higher one is cheaper.
    """

    levels: Mapping[str, tuple[int, ...]]

    def activate(self, config: Mapping[str, int]) -> None:
        """Let the next forward run this sub-network: a level for each name in `levels`."""

    def norms_in_use(self) -> dict[str, BatchNorm]:
        """The batch norms that the next forward uses, by module name."""

    def macs(self, config: Mapping[str, int], input_shape: tuple[int, ...]) -> int:
        """Multiply-accumulates of a sub-network for one image of (C, H, W)."""


def weight_enabled(net: nn.Module) -> dict[str, WeightEnabled]:
    """Weight-enabled layers by module name, in the network's order."""
    return {name: module for name, module in net.named_modules() if isinstance(module, WeightEnabled)}


def switchable_norms(net: nn.Module) -> dict[str, SwitchableBatchNorm]:
    """Switchable batch norms by module name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, SwitchableBatchNorm)}


def fixed_norms(net: nn.Module) -> dict[str, BatchNorm]:
    """Batch norms that no weight-enabled layer switches, by module name."""
    owned = {id(norm) for switch in switchable_norms(net).values() for _, norm in switch.norms()}
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, BatchNorm) and id(module) not in owned
    }


def shuffles(net: nn.Module) -> dict[str, ChannelShuffle]:
    """Channel shuffles by module name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, ChannelShuffle)}


def set_active(net: nn.Module, config: Mapping[str, int]) -> None:
    """Activate a configuration: groups per layer, each clipped to what the layer allows.

    Raises:
        NetworkError: the configuration does not name exactly the network's weight-enabled layers.
    """
    if isinstance(net, Flexible):
        net.activate(config)
        return
    layers = weight_enabled(net)
    if set(config) != set(layers):
        missing, unknown = sorted(set(layers) - set(config)), sorted(set(config) - set(layers))
        raise NetworkError(
            f"the configuration does not fit this network: it lacks {missing} and names unknown {unknown}; "
            "take configurations from the network's own SearchSpace"
        )
    for name, layer in layers.items():
        layer.set_groups(config[name])


def active_norms(net: nn.Module) -> dict[str, BatchNorm]:
    """The batch norms that the next forward uses, by module name: active patterns and fixed norms."""
    if isinstance(net, Flexible):
        return net.norms_in_use()
    names = {id(module): name for name, module in net.named_modules()}
    active = [norm.active_norm() for norm in switchable_norms(net).values()]
    return {names[id(norm)]: norm for norm in [*active, *fixed_norms(net).values()]}


def layer_blocks(net: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Weight-enabled layers grouped by block.

    A layer's block is the smallest module around it that holds several weight-enabled layers and is no
    plain container: a residual block with its shortcut. A layer that has none, or whose smallest one
    holds blocks of its own (a stage, the network), stands alone.
    """
    modules = dict(net.named_modules())
    held: dict[str, list[str]] = {}
    for name in weight_enabled(net):
        parts = name.split(".")
        for path in (".".join(parts[:depth]) for depth in range(1, len(parts))):
            if not _is_container(modules[path]):
                held.setdefault(path, []).append(name)
    several = [path for path, names in held.items() if len(names) > 1]
    smallest = [path for path in several if not any(other.startswith(f"{path}.") for other in several)]
    blocks: dict[str, list[str]] = {}
    for name in weight_enabled(net):
        blocks.setdefault(next((path for path in smallest if name.startswith(f"{path}.")), name), []).append(name)
    return tuple(tuple(names) for names in blocks.values())


def _is_container(module: nn.Module) -> bool:
    """Whether it only holds others, or runs them in a row; a subclass with a forward of its own is more."""
    if isinstance(module, nn.Sequential):
        return type(module).forward is nn.Sequential.forward
    return isinstance(module, nn.ModuleList | nn.ModuleDict)
