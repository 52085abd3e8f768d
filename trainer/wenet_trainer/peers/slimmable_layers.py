"""Layers that use their first channels only, one count per width level.

What is in use is a slice of the full weight, never a mask, so time and gradients shrink with it.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from wenet_trainer.errors import NetworkError

FULL = 16  # widths are counted in sixteenths


def kept_channels(channels: int, sixteenths: int, divisor: int) -> int:
    """How many channels a width keeps: its share, rounded to a multiple of `divisor` (halves up).

    At least `divisor`, at most `channels`; all of them at full width, whatever the divisor.
    """
    if sixteenths == FULL:
        return channels
    nearest = (2 * channels * sixteenths + FULL * divisor) // (2 * FULL * divisor) * divisor
    return min(channels, max(divisor, nearest))


class SlimmableConv2d(nn.Conv2d):
    """A dense or depthwise convolution from the first `ins` to the first `outs` channels.

    Args:
        conv: where geometry, weight and bias are taken from; its grouping patterns, if any, are dropped.
        ins: input channels of each level, from level 1 on.
        outs: output channels of each level.

    Raises:
        NetworkError: it is grouped, but not depthwise, or does not pad with zeros.
    """

    def __init__(self, conv: nn.Conv2d, ins: Sequence[int], outs: Sequence[int]) -> None:
        depthwise = conv.groups > 1
        if depthwise and not conv.groups == conv.in_channels == conv.out_channels:
            raise NetworkError(
                f"a convolution from {conv.in_channels} to {conv.out_channels} channels in {conv.groups} groups "
                "cannot be slimmed: use a dense or a depthwise one"
            )
        if conv.padding_mode != "zeros":
            raise NetworkError(f"a convolution that pads with '{conv.padding_mode}' cannot be slimmed: use zeros")
        kernel, stride, dilation = ((pair[0], pair[1]) for pair in (conv.kernel_size, conv.stride, conv.dilation))
        padding = conv.padding if isinstance(conv.padding, str) else (conv.padding[0], conv.padding[1])
        super().__init__(
            conv.in_channels, conv.out_channels, kernel, stride, padding, dilation, conv.groups, conv.bias is not None
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.ins, self.outs = tuple(ins), tuple(outs)
        self.level = 1

    def active(self) -> tuple[Tensor, Tensor | None]:
        """(out, in, k, k) weight and (out,) bias of the level in use, as views; in is 1 where depthwise."""
        out = self.outs[self.level - 1]
        weight = self.weight[:out] if self.groups > 1 else self.weight[:out, : self.ins[self.level - 1]]
        return weight, None if self.bias is None else self.bias[:out]

    def forward(self, input: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H', W') at the level in use."""
        check_arrival(input.shape[1], self.ins[self.level - 1])
        weight, bias = self.active()
        groups = len(weight) if self.groups > 1 else 1
        return F.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, groups)


class SlimmableLinear(nn.Linear):
    """A dense layer from the first `ins` to the first `outs` features.

    Args:
        linear: where weight and bias are taken from; its grouping patterns, if any, are dropped.
        ins: input features of each level, from level 1 on.
        outs: output features of each level.
    """

    def __init__(self, linear: nn.Linear, ins: Sequence[int], outs: Sequence[int]) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self.ins, self.outs = tuple(ins), tuple(outs)
        self.level = 1

    def active(self) -> tuple[Tensor, Tensor | None]:
        """(out, in) weight and (out,) bias of the level in use, as views."""
        out = self.outs[self.level - 1]
        return self.weight[:out, : self.ins[self.level - 1]], None if self.bias is None else self.bias[:out]

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) → (..., out) at the level in use."""
        check_arrival(input.shape[-1], self.ins[self.level - 1])
        return F.linear(input, *self.active())


SlimmableLayer = SlimmableConv2d | SlimmableLinear


def check_arrival(found: int, expected: int) -> None:
    """Raises `NetworkError` when other channels arrive than this width should bring."""
    if found != expected:
        raise NetworkError(
            f"{found} channels reach a layer that expects {expected} at this width: between two layers the network "
            "must not flatten, join or split channels, and its classifier must be defined last"
        )
