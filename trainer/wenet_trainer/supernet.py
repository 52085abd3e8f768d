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

    A layer's block is the outermost module around it that is neither the network nor a plain
    container: a residual block with its shortcut. A layer outside any block stands alone.
    """
    plain = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    modules = dict(net.named_modules())
    blocks: dict[str, list[str]] = {}
    for name in weight_enabled(net):
        parts = name.split(".")
        ancestors = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        block = next(path for path in ancestors if type(modules[path]) not in plain)
        blocks.setdefault(block, []).append(name)
    return tuple(tuple(names) for names in blocks.values())
