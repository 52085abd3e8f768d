"""A very small supernet for tests: a bottleneck, a depthwise block and a weight-enabled dense layer."""

import torch
from torch import Tensor, nn

from wenet_trainer.layers import ChannelShuffle, WeightEnabledConv2d, WeightEnabledLinear
from wenet_trainer.norms import SwitchableBatchNorm2d


class DepthwiseBlock(nn.Module):
    """1×1 → shuffle → depthwise 3×3 → 1×1 with a shortcut, as in mobile networks.

    The norm behind the depthwise convolution is switched by the 1×1 before it.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.expand = WeightEnabledConv2d(channels, inner, 1)
        self.expand_bn = SwitchableBatchNorm2d(inner, fed_by=self.expand)
        self.shuffle = ChannelShuffle(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.depthwise_bn = SwitchableBatchNorm2d(inner, fed_by=self.expand)
        self.project = WeightEnabledConv2d(inner, channels, 1)
        self.project_bn = SwitchableBatchNorm2d(channels, fed_by=self.project)
        self.relu = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        out: Tensor = self.shuffle(self.relu(self.expand_bn(self.expand(x))))
        out = self.relu(self.depthwise_bn(self.depthwise(out)))
        out = self.project_bn(self.project(out))
        return torch.add(out, x)


class TinyNet(nn.Module):
    """Dense stem, a grouped 3×3, a depthwise block, a weight-enabled dense layer and a dense head.

    Args:
        width: channels; a multiple of 16 makes 16 groups possible.
        classes: labels.
    """

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 5, stride=4, padding=2, bias=False)
        self.stem_bn = nn.BatchNorm2d(width)
        self.conv = WeightEnabledConv2d(width, width, 3, stride=2, padding=1, bias=True)
        self.conv_bn = SwitchableBatchNorm2d(width, fed_by=self.conv)
        self.block = DepthwiseBlock(width, width * 2)
        self.hidden = WeightEnabledLinear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 32, 32) → (N, classes) logits."""
        x = torch.relu(self.stem_bn(self.stem(x)))
        x = torch.relu(self.conv_bn(self.conv(x)))
        x = self.block(x).mean((2, 3))
        logits: Tensor = self.head(torch.relu(self.hidden(x)))
        return logits
