"""The layers that only a converted network has; each stands where a plain one stood and keeps its numbers' names."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenet_trainer.convert.tracing import FAILURES
from wenet_trainer.layers import MAX_GROUPS, ChannelShuffle, WeightEnabled, WeightEnabledConv2d
from wenet_trainer.norms import SwitchableBatchNorm2d

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class ShuffledConv2d(WeightEnabledConv2d):
    """A weight-enabled convolution that shuffles its input first.

    A foreign network's forward has no place for a shuffle of its own, so it stands in the layer that reads it.
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
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias, max_groups)
        self.shuffle = ChannelShuffle(in_channels)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H', W') with the active pattern."""
        return super().forward(self.shuffle(input))


class ShuffledGroupedConv2d(nn.Conv2d):
    """A convolution in fixed groups, depthwise or wider, that shuffles its input first."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        self.shuffle = ChannelShuffle(in_channels)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H', W')."""
        return super().forward(self.shuffle(input))


class SwitchableBatchNormAct2d(SwitchableBatchNorm2d):
    """A switchable batch norm with a dropout and an activation of its own behind it, as timm's networks have it."""

    def __init__(
        self,
        channels: int,
        *,
        fed_by: WeightEnabled,
        drop: nn.Module,
        act: nn.Module,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__(channels, fed_by=fed_by, eps=eps, momentum=momentum)
        self.drop = drop
        self.act = act

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → the same, normalised with the active pattern's parameters, then activated."""
        out: Tensor = self.act(self.drop(super().forward(input)))
        return out


def own_activation(norm: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """The dropout and the activation inside a batch norm that has both, as timm's `BatchNormAct2d` has.

    The class is not asked for, so that timm need not be there; a small image is. None: it is no such norm.
    """
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    if not isinstance(norm, nn.BatchNorm2d) or not isinstance(drop, nn.Module) or not isinstance(act, nn.Module):
        return None
    if norm.weight is None or norm.running_mean is None or norm.weight.is_meta:
        return None
    modes = {module: module.training for module in norm.modules()}
    image = torch.linspace(-3, 3, norm.num_features * 16).reshape(1, norm.num_features, 4, 4).to(norm.weight)
    try:
        with torch.no_grad():
            norm.eval()
            plain = F.batch_norm(
                image, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
            )
            same = torch.equal(norm(image), act(drop(plain)))
    except FAILURES:  # another class with other children of these names
        return None
    finally:
        for module, training in modes.items():
            module.training = training
    return (drop, act) if same else None


def has_hooks(module: nn.Module) -> bool:
    """Whether something else is called when this module is: a hook, as weight norm and pruning use them."""
    return any(
        getattr(module, hooks)
        for hooks in ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    )
