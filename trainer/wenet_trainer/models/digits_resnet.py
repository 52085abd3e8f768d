"""The demo's residual network: weight-enabled bottlenecks on 1×32×32 images, narrow first and wide last."""

import torch
from torch import Tensor, nn

from wenet_trainer.layers import ChannelShuffle, WeightEnabledConv2d
from wenet_trainer.norms import SwitchableBatchNorm2d


class Bottleneck(nn.Module):
    """1×1 → shuffle → 3×3 → 1×1 with a shortcut; every convolution is weight-enabled."""

    def __init__(self, in_channels: int, inner: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = WeightEnabledConv2d(in_channels, inner, 1)
        self.bn1 = SwitchableBatchNorm2d(inner, fed_by=self.conv1)
        self.shuffle = ChannelShuffle(inner)
        self.conv2 = WeightEnabledConv2d(inner, inner, 3, stride=stride, padding=1)
        self.bn2 = SwitchableBatchNorm2d(inner, fed_by=self.conv2)
        self.conv3 = WeightEnabledConv2d(inner, out_channels, 1)
        self.bn3 = SwitchableBatchNorm2d(out_channels, fed_by=self.conv3)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            shortcut = WeightEnabledConv2d(in_channels, out_channels, 1, stride=stride)
            self.downsample = nn.Sequential(shortcut, SwitchableBatchNorm2d(out_channels, fed_by=shortcut))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H / stride, W / stride)."""
        out = self.shuffle(self.relu(self.bn1(self.conv1(x))))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu_(out + self.downsample(x))


class DigitsResNet(nn.Module):
    """A dense stem, bottlenecks at 8×8, 4×4 and twice at 2×2, and a dense head.

    The first two are narrow, so that few weights are left at 16 groups and accuracy is really traded.
    The last two are wide: their full weights outgrow a core's caches while the arithmetic stays small,
    as in the last stage of larger networks, so enabling fewer of them saves time.

    Args:
        width: channels after the stem; the others are multiples of it.
        tail: inner channels of the last two bottlenecks.
        classes: labels.
    """

    def __init__(self, width: int = 16, tail: int = 512, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 5, stride=2, padding=2, bias=False)
        self.stem_bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.blocks = nn.Sequential(
            Bottleneck(width, width * 2, width * 4),
            Bottleneck(width * 4, width * 4, width * 8, stride=2),
            Bottleneck(width * 8, tail, width * 32, stride=2),
            Bottleneck(width * 32, tail, width * 32),
        )
        self.head = nn.Linear(width * 32, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 32, 32) → (N, classes) logits."""
        x = self.pool(self.relu(self.stem_bn(self.stem(x))))
        logits: Tensor = self.head(self.blocks(x).mean((2, 3)))
        return logits
