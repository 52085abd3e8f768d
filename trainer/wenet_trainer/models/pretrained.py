"""Starts a supernet from a trained plain network: its numbers become the full network's."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import ChannelShuffle
from wenet_trainer.norms import SwitchableBatchNorm
from wenet_trainer.supernet import switchable_norms

NAMED = 5


def load_full(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load a plain network's state dict into the full network (pattern 1), all of it or nothing.

    A plain network has no channel shuffles. So the outputs of the layer before each shuffle, and its
    norm's numbers, are stored in the order that the shuffle undoes: the full network then answers
    exactly as the plain one does. Numbers that were trained with the shuffles are no case for this
    function; `Module.load_state_dict` takes them as they are.

    Every other pattern's norm starts as a copy of pattern 1's affine parameters and statistics. Those
    statistics are wrong for the thinner networks until they are trained or recalibrated.

    Args:
        net: the supernet; changed in place.
        state_dict: tensors by name, each of the shape that the supernet's tensor of this name has.

    Raises:
        NetworkError: a name is missing or unknown, a shape differs, or it cannot be told which layer a
            shuffle follows; the network is left as it was.
    """
    switches = switchable_norms(net)
    copies = tuple(f"{name}.patterns." for name in switches)
    own = {name: tensor for name, tensor in net.state_dict().items() if not name.startswith(copies)}
    misfits = [
        f"{name} is {tuple(state_dict[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state_dict and state_dict[name].shape != tensor.shape
    ]
    faults = {
        "it lacks": [name for name in own if name not in state_dict],
        "it has unknown": [name for name in state_dict if name not in own],
        "shapes differ:": misfits,
    }
    if any(faults.values()):
        found = "; ".join(f"{what} {_some(names)}" for what, names in faults.items() if names)
        raise NetworkError(
            f"the state dict does not fit the full network: {found}. "
            "Take the numbers of this very network, with the same number of classes"
        )
    orders = _stored_orders(net)
    with torch.no_grad():
        for name, tensor in own.items():
            if name in orders and tensor.dim():
                tensor[orders[name]] = state_dict[name].to(tensor)
            else:
                tensor.copy_(state_dict[name])
        for switch in switches.values():
            start_patterns(switch)


def start_patterns(switch: SwitchableBatchNorm) -> None:
    """Start every other pattern's norm as a copy of pattern 1's affine parameters and statistics."""
    for level, norm in switch.norms():
        if level > 1:
            norm.load_state_dict({name: switch.state_dict()[name] for name in norm.state_dict()})


def read_pretrained(path: Path) -> dict[str, Tensor]:
    """The state dict of a plain network from a safetensors file.

    Raises:
        NetworkError: there is no such file, or it is another format; pickles are never loaded.
    """
    try:
        return load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise NetworkError(
            f"cannot read {path} as safetensors ({error}): save the plain network's state dict with "
            "safetensors.torch.save_file; other formats may run code when they are read"
        ) from None


def _stored_orders(net: nn.Module) -> dict[str, Tensor]:
    """Where the rows of a tensor are stored, for every tensor of the layer and the norm before each shuffle."""
    names = {module: name for name, module in net.named_modules()}
    orders: dict[str, Tensor] = {}
    layer: nn.Module | None = None
    norm: nn.Module | None = None
    for module in net.modules():  # in the order in which they were assigned
        if isinstance(module, nn.Conv2d | nn.Linear):
            layer, norm = module, None
        elif isinstance(module, SwitchableBatchNorm):
            norm = module
        elif isinstance(module, ChannelShuffle):
            if not isinstance(norm, SwitchableBatchNorm) or norm.fed_by is not layer:
                raise NetworkError(
                    f"it cannot be told which layer the shuffle '{names[module]}' follows: "
                    "assign the layer, its norm and the shuffle in this order"
                )
            for owner in (norm.fed_by, norm):
                orders.update({f"{names[owner]}.{name}": module.permutation for name in owner.state_dict()})
    return orders


def _some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
