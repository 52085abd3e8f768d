"""The enabled part of a full weight: the blocks on its diagonal (paper III-A, III-B), copied out and never masked.

The gradient goes straight into the diagonal of the full weight's gradient. Left to autograd, every
sub-network of a step would fill a full-size tensor with zeros, copy its blocks into it and add all of
it up, which costs more than the blocks' arithmetic at many groups.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def block_diagonal(weight: Tensor, groups: int) -> Tensor:
    """The enabled part of a full weight, as a view.

    Args:
        weight: (out, in, ...) full weight.
        groups: pattern; must divide both `out` and `in`.

    Returns:
        (groups, out / groups, in / groups, ...): group j of the outputs sees group j of the inputs.
    """
    out_channels, in_channels, *kernel = weight.shape
    blocks = weight.view(groups, out_channels // groups, groups, in_channels // groups, *kernel)
    return torch.diagonal(blocks, dim1=0, dim2=2).movedim(-1, 0)


def enabled(weight: Tensor, groups: int) -> Tensor:
    """The enabled part of a full weight, as a copy that a forward may use.

    Where `weight` is a parameter, its gradient is accumulated into `weight.grad` when the backward
    reaches it, as for any parameter, but hooks on the parameter and `torch.autograd.grad` do not see
    it. A weight that was computed from others (a parametrization) goes through autograd as usual.

    Args:
        weight: (out, in, ...) full weight.
        groups: pattern; must divide both `out` and `in`.

    Returns:
        (groups, out / groups, in / groups, ...), contiguous.
    """
    if torch.compiler.is_compiling() or not weight.is_leaf:
        return block_diagonal(weight, groups).contiguous()
    blocks: Tensor = _Enabled.apply(weight, groups)  # type: ignore[no-untyped-call]
    return blocks


class _Enabled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, groups: int) -> Tensor:
        ctx.weight, ctx.groups = weight, groups  # not its values: only where its gradient belongs
        return block_diagonal(weight, groups).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        weight: Tensor = ctx.weight
        with torch.no_grad():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            block_diagonal(weight.grad, ctx.groups).add_(gradients[0])
        return None, None
