"""Weight-enabling without this project's means: full-size masked weights, and blocks cut out by autograd."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenet_trainer.enabling import block_diagonal
from wenet_trainer.layers import WeightEnabled, WeightEnabledConv2d
from wenet_trainer.supernet import weight_enabled

Way = Callable[[WeightEnabled, Tensor], Tensor]


Masks = dict[tuple[int, int], Tensor]


@contextmanager
def masked(net: nn.Module, masks: Masks) -> Iterator[None]:
    """The plain way: every sub-network runs at full size, its disabled weights times zero.

    Args:
        net: the supernet.
        masks: kept from one use to the next, so that making them counts only once.
    """

    def forward(layer: WeightEnabled, input: Tensor) -> Tensor:
        key = (id(layer), layer.active_groups)
        if key not in masks:
            mask = torch.zeros_like(layer.weight)
            block_diagonal(mask, layer.active_groups).fill_(1.0)
            masks[key] = mask
        return _run(layer, input, layer.weight * masks[key] if layer.active_groups > 1 else layer.weight, 1)

    with _changed(net, forward):
        yield


@contextmanager
def by_autograd(net: nn.Module) -> Iterator[None]:
    """The obvious way: the blocks are cut out and torch's own operators do the rest."""

    def forward(layer: WeightEnabled, input: Tensor) -> Tensor:
        groups = layer.active_groups
        if groups == 1:
            return _run(layer, input, layer.weight, 1)
        blocks = block_diagonal(layer.weight, groups)
        if isinstance(layer, WeightEnabledConv2d):
            return _run(layer, input, blocks.flatten(0, 1), groups)
        out = torch.einsum("...gi,goi->...go", input.view(*input.shape[:-1], groups, -1), blocks).flatten(-2)
        return out if layer.bias is None else out + layer.bias

    with _changed(net, forward):
        yield


def _run(layer: WeightEnabled, input: Tensor, weight: Tensor, groups: int) -> Tensor:
    if isinstance(layer, WeightEnabledConv2d):
        return F.conv2d(input, weight, layer.bias, layer.stride, layer.padding, layer.dilation, groups)
    return F.linear(input, weight, layer.bias)


@contextmanager
def _changed(net: nn.Module, way: Way) -> Iterator[None]:
    layers = weight_enabled(net).values()
    try:
        for layer in layers:
            # On the instance, where a module looks for its forward first.
            setattr(layer, "forward", lambda input, layer=layer: way(layer, input))  # noqa: B010
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]
