"""The layers that only a converted network has; each stands where a plain one stood and keeps its numbers' names."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from wenet_trainer.convert.tracing import FAILURES
from wenet_trainer.convert.trial import attempt
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

    The class is not asked for, so that timm need not be there; a copy is given a small image in both modes.
    None: it is no such norm, or has hooks.
    """
    if not isinstance(norm, nn.BatchNorm2d) or norm.weight is None or norm.running_mean is None:
        return None
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    if not isinstance(drop, nn.Module) or not isinstance(act, nn.Module) or norm.weight.is_meta or has_hooks(norm):
        return None
    try:
        same = all(_only_normalises_and_activates(norm, drop, act, training) for training in (False, True))
    except FAILURES:  # another class with other children of these names
        return None
    return (drop, act) if same else None


def _only_normalises_and_activates(norm: nn.BatchNorm2d, drop: nn.Module, act: nn.Module, training: bool) -> bool:
    """Whether it answers, and keeps its statistics, as torch's own norm, its dropout and its activation do."""
    whole = copy.deepcopy(norm).float().cpu().train(training)
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum)
    numbers = whole.state_dict()
    plain.load_state_dict({name: numbers[name] for name in plain.state_dict()})
    parts = copy.deepcopy(nn.Sequential(plain, drop, act)).float().cpu().train(training)
    image = torch.linspace(-3, 3, norm.num_features * 32).reshape(2, norm.num_features, 4, 4)
    found, expected = (attempt(one, image)[0] for one in (whole, parts))
    numbers, kept = whole.state_dict(), parts[0].state_dict()
    if norm.momentum is not None:  # then nobody asks how many batches there were, and not every class counts them
        del kept["num_batches_tracked"]
    return torch.equal(found, expected) and all(torch.equal(numbers[name], kept[name]) for name in kept)


def has_hooks(module: nn.Module) -> bool:
    """Whether something else is called when this module, or one inside it, is.

    That is a hook, as weight norm and pruning use them, or a method that was set on the object, as `forward`.
    """
    return any(_is_hooked(one) for one in module.modules())


def _is_hooked(module: nn.Module) -> bool:
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return any(getattr(module, name) for name in hooks) or any(
        callable(value) and callable(getattr(type(module), name, None)) for name, value in vars(module).items()
    )
