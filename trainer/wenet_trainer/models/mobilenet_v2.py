"""MobileNet-V2 on 3×224×224 images, its 1×1 convolutions weight-enabled; named and shaped as torchvision's."""

from torch import Tensor, nn

from wenet_trainer.layers import ChannelShuffle, WeightEnabledConv2d
from wenet_trainer.models.classifier import classifier
from wenet_trainer.norms import SwitchableBatchNorm2d

STEM, HEAD = 32, 1280
# (expansion, output channels, blocks, stride of the first): table 2 of the MobileNet-V2 paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1×1 expansion → shuffle → depthwise 3×3 → 1×1 projection without activation, and a shortcut where it fits.

    The norm behind the depthwise convolution is switched by the expansion. A block that does not expand
    has neither the first 1×1 nor a shuffle, and its depthwise norm is a fixed one.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        depthwise = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False)
        project = WeightEnabledConv2d(inner, out_channels, 1)
        steps: list[nn.Module] = []
        depthwise_norm: nn.Module = nn.BatchNorm2d(inner)
        if expansion > 1:
            expand = WeightEnabledConv2d(in_channels, inner, 1)
            norm = SwitchableBatchNorm2d(inner, fed_by=expand)
            # The shuffle comes last in its row: it has no number of its own, so it moves no other's name.
            steps.append(nn.Sequential(expand, norm, nn.ReLU6(inplace=True), ChannelShuffle(inner)))
            depthwise_norm = SwitchableBatchNorm2d(inner, fed_by=expand)
        steps.append(nn.Sequential(depthwise, depthwise_norm, nn.ReLU6(inplace=True)))
        self.conv = nn.Sequential(*steps, project, SwitchableBatchNorm2d(out_channels, fed_by=project))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H / stride, W / stride)."""
        out: Tensor = self.conv(x)
        return x + out if self.has_shortcut else out


class MobileNetV2(nn.Module):
    """A dense stem, inverted residuals, a weight-enabled 1×1 convolution and a dense head.

    Args:
        classes: labels.
        grouped_classifier: 1 makes the head weight-enabled.
    """

    def __init__(self, classes: int = 1000, grouped_classifier: int = 0) -> None:
        super().__init__()
        stem = nn.Conv2d(3, STEM, 3, stride=2, padding=1, bias=False)
        rows: list[nn.Module] = [nn.Sequential(stem, nn.BatchNorm2d(STEM), nn.ReLU6(inplace=True))]
        channels = STEM
        for expansion, out_channels, count, first_stride in STAGES:
            for number in range(count):
                stride = first_stride if number == 0 else 1
                rows.append(InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        last = WeightEnabledConv2d(channels, HEAD, 1)
        rows.append(nn.Sequential(last, SwitchableBatchNorm2d(HEAD, fed_by=last), nn.ReLU6(inplace=True)))
        self.features = nn.Sequential(*rows)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), classifier(HEAD, classes, grouped_classifier))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, classes) logits."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits
