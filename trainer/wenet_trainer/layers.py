"""The weight-enabled layers of WeNet: their active weights are the block diagonal of one full weight.

A pattern (`groups`) enables 1/groups of a layer's weights (paper III-A, III-B). The enabled part is
copied out, never masked, so time and gradients shrink with it. The channel shuffle between two of them
(III-B) stands here too.
"""

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenet_trainer.enabling import enabled
from wenet_trainer.errors import NetworkError

MAX_GROUPS = 16
VECTOR = 8  # channels; a CPU's grouped convolution falls to a slow path when a group has no multiple of them
PRODUCT_GROUPS, PRODUCT_PIXELS = 4, 64  # where the product is quicker, measured with ResNet-50's layers


def allowed_groups(in_channels: int, out_channels: int, max_groups: int = MAX_GROUPS) -> tuple[int, ...]:
    """Powers of two up to `max_groups` that divide both channel counts, ascending, starting with 1."""
    if max_groups < 1:
        raise NetworkError(f"max_groups must be at least 1, got {max_groups}")
    common = gcd(in_channels, out_channels)
    levels = [1]
    while levels[-1] * 2 <= max_groups and common % (levels[-1] * 2) == 0:
        levels.append(levels[-1] * 2)
    return tuple(levels)


def clip_groups(groups: int, allowed: tuple[int, ...]) -> int:
    """The largest allowed pattern that is not above `groups`."""
    if groups < 1:
        raise NetworkError(f"groups must be at least 1, got {groups}")
    return max(level for level in allowed if level <= groups)


class WeightEnabledConv2d(nn.Conv2d):
    """A convolution that runs as 1, 2, 4 … independent groups cut out of one full weight (paper III-B).

    Attributes:
        groups_allowed: the patterns its channels allow.
        active_groups: the pattern the next forward uses.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = False,
        max_groups: int = MAX_GROUPS,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias)
        self.groups_allowed = allowed_groups(in_channels, out_channels, max_groups)
        self.active_groups = 1

    def set_groups(self, groups: int) -> None:
        """Activate a pattern, clipped to the largest allowed one that is not above it."""
        self.active_groups = clip_groups(groups, self.groups_allowed)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H', W') with the active pattern."""
        groups = self.active_groups
        if groups == 1:  # the parameter itself is used, so an export keeps its name
            return super().forward(input)
        if self._is_quicker_as_product(input):
            return self._product(input, enabled(self.weight, groups))
        if input.device.type == "cpu":
            groups = self._vector_groups()
        weight = enabled(self.weight, self.active_groups, groups).flatten(0, 1)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, groups)

    def _vector_groups(self) -> int:
        """The most groups, of those that can hold the active ones, whose channels fill whole vectors."""
        groups = self.active_groups
        while groups > 1 and (self.in_channels // groups % VECTOR or self.out_channels // groups % VECTOR):
            groups //= 2
        # With a vector in none, as many groups as there are cost least.
        return groups if groups > 1 else self.active_groups

    def _is_quicker_as_product(self, input: Tensor) -> bool:
        # On a CPU torch runs a grouped 1x1 convolution group after group and joins the results; one
        # product over all groups takes 0.6-0.9 of the time, unless the groups are large beside the image.
        return (
            input.device.type == "cpu"
            and self.kernel_size == (1, 1)
            and self.stride == (1, 1)
            and self.padding in ((0, 0), "valid", "same")
            and self.active_groups >= PRODUCT_GROUPS
            and input[0, 0].numel() >= PRODUCT_PIXELS
        )

    def _product(self, input: Tensor, blocks: Tensor) -> Tensor:
        images, _, height, width = input.shape
        grouped = input.reshape(images, self.active_groups, -1, height * width)
        out = torch.matmul(blocks.flatten(2), grouped).view(images, -1, height, width)
        return out if self.bias is None else out + self.bias.view(-1, 1, 1).to(out.dtype)


class WeightEnabledLinear(nn.Linear):
    """A dense layer that runs as independent groups cut out of one full weight (paper III-A)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, max_groups: int = MAX_GROUPS) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.groups_allowed = allowed_groups(in_features, out_features, max_groups)
        self.active_groups = 1

    def set_groups(self, groups: int) -> None:
        """Activate a pattern, clipped to the largest allowed one that is not above it."""
        self.active_groups = clip_groups(groups, self.groups_allowed)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) → (..., out) with the active pattern."""
        groups = self.active_groups
        if groups == 1:
            return F.linear(input, self.weight, self.bias)
        grouped = input.view(*input.shape[:-1], groups, -1)
        out = torch.einsum("...gi,goi->...go", grouped, enabled(self.weight, groups)).flatten(-2)
        return out if self.bias is None else out + self.bias.to(out.dtype)


WeightEnabled = WeightEnabledConv2d | WeightEnabledLinear


def shuffle_indices(channels: int, groups: int) -> Tensor:
    """Which input channel each output channel of a shuffle takes: (channels,) int64.

    Reshape to (groups, n), transpose, flatten (paper III-B).
    """
    if groups < 1 or channels % groups:
        raise NetworkError(f"{channels} channels cannot be shuffled in {groups} groups: choose a divisor of {channels}")
    return torch.arange(channels).view(groups, channels // groups).t().flatten()


class ChannelShuffle(nn.Module):
    """The fixed channel shuffle between two weight-enabled layers, whatever their active patterns are."""

    permutation: Tensor

    def __init__(self, channels: int, groups: int = MAX_GROUPS) -> None:
        super().__init__()
        self.channels = channels
        self.groups = groups
        # Not persistent: it follows from (channels, groups), so it is no number of the checkpoint.
        self.register_buffer("permutation", shuffle_indices(channels, groups), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, ...) → the same with channels permuted; exports as one Gather."""
        return x.index_select(1, self.permutation)

    def extra_repr(self) -> str:
        """What the printed network shows."""
        return f"{self.channels}, groups={self.groups}"
