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


def enabled(weight: Tensor, groups: int, emitted: int | None = None) -> Tensor:
    """The enabled part of a full weight, as a copy that a forward may use.

    Where `weight` is a parameter, its gradient is accumulated into `weight.grad` when the backward
    reaches it, as for any parameter, but hooks on the parameter and `torch.autograd.grad` do not see
    it. A weight that was computed from others (a parametrization) goes through autograd as usual.

    Args:
        weight: (out, in, ...) full weight.
        groups: pattern; must divide both `out` and `in`.
        emitted: how many groups the forward runs, `groups` by default. With fewer, which must divide
            `groups`, several blocks stand on the diagonal of one and zeros fill the rest.

    Returns:
        (emitted, out / emitted, in / emitted, ...), contiguous.
    """
    emitted = emitted or groups
    if torch.compiler.is_compiling() or not weight.is_leaf:
        return _merged(block_diagonal(weight, groups), emitted)
    blocks: Tensor = _Enabled.apply(weight, groups, emitted)  # type: ignore[no-untyped-call]
    return blocks


class _Enabled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, groups: int, emitted: int) -> Tensor:
        ctx.weight, ctx.groups = weight, groups  # not its values: only where its gradient belongs
        return _merged(block_diagonal(weight, groups), emitted)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        weight: Tensor = ctx.weight
        gradient = gradients[0]
        emitted = len(gradient)
        with torch.no_grad():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            if emitted < ctx.groups:
                gradient = _diagonal(_split(gradient, ctx.groups // emitted)).flatten(0, 1)
            block_diagonal(weight.grad, ctx.groups).add_(gradient)
        return None, None, None


def _merged(blocks: Tensor, emitted: int) -> Tensor:
    """(groups, o, i, ...) → (emitted, m·o, m·i, ...): m = groups / emitted blocks on each diagonal."""
    groups, outs, ins, *kernel = blocks.shape
    if emitted == groups:
        return blocks.contiguous()
    several = groups // emitted
    merged = blocks.new_zeros((emitted, several * outs, several * ins, *kernel))
    _diagonal(_split(merged, several)).copy_(blocks.view(emitted, several, outs, ins, *kernel))
    return merged


def _split(merged: Tensor, several: int) -> Tensor:
    """(emitted, m·o, m·i, ...) → (emitted, m, o, m, i, ...), a view."""
    emitted, outs, ins, *kernel = merged.shape
    return merged.view(emitted, several, outs // several, several, ins // several, *kernel)


def _diagonal(split: Tensor) -> Tensor:
    """(emitted, m, o, m, i, ...) → (emitted, m, o, i, ...), a view."""
    return torch.diagonal(split, dim1=1, dim2=3).movedim(-1, 1)
