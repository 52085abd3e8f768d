"""The optimizer, its parameter groups and its learning-rate schedule."""

from collections.abc import Mapping
from math import cos, pi

import torch
from torch import Tensor, nn

from wenet_trainer.errors import CheckpointError
from wenet_trainer.recipe import Recipe


def open_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; the numbers of norms, and biases, are not decayed: they are vectors."""
    parameters = list(net.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def schedule(progress: float, warm_up: float) -> float:
    """Share of the peak learning rate at `progress` (0–1): linear over `warm_up`, then a cosine to zero."""
    if progress < warm_up:
        return (progress + 0.01) / (warm_up + 0.01)
    return 0.5 * (1 + cos(pi * (progress - warm_up) / (1 - warm_up)))


def optimizer_state(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors by "<key>.<parameter name>"."""
    return {
        f"{key}.{name}": value
        for name, parameter in net.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(net: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Put tensors from `optimizer_state` back into an optimizer over the network's parameters."""
    parameters = dict(net.named_parameters())
    for full_name, value in state.items():
        key, _, name = full_name.partition(".")
        if name not in parameters:
            raise CheckpointError(f"the checkpoint's optimizer knows '{name}', the model does not: train again")
        parameter = parameters[name]
        if key == "step":  # a fused optimizer keeps it where the parameter is
            optimizer.state[parameter][key] = value.to(parameter.device, copy=True)
        else:  # in the parameter's own layout, which a fused optimizer takes for granted
            optimizer.state[parameter][key] = torch.empty_like(parameter).copy_(value).detach()
