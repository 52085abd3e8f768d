"""EfficientNet-B0 on 3×224×224 images, its 1×1 convolutions weight-enabled; named and shaped as torchvision's."""

import torch
from torch import Tensor, nn

from wenet_trainer.layers import ChannelShuffle, WeightEnabledConv2d
from wenet_trainer.models.classifier import classifier
from wenet_trainer.norms import SwitchableBatchNorm2d

STEM, HEAD = 32, 1280
# (expansion, kernel, stride of the first, output channels, blocks): table 1 of the EfficientNet paper.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
DROP = 0.2  # the classifier's dropout, and what the blocks' stochastic depth rises towards


class SqueezeExcite(nn.Module):
    """Scales every channel by a number between 0 and 1 that two dense layers make from all channels' means."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.SiLU(inplace=True)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        scale: Tensor = self.gate(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return scale * x


class StochasticDepth(nn.Module):
    """In training drops a residual branch for single images of the batch; else passes it on unchanged."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) → the same, with some images zero and the others scaled up so that the mean stays."""
        if not self.training or self.probability == 0:
            return x
        survival = 1 - self.probability
        kept = torch.rand(len(x), *(1,) * (x.dim() - 1), device=x.device) < survival
        return x * (kept.to(x.dtype) / survival)

    def extra_repr(self) -> str:
        """What the printed network shows."""
        return f"{self.probability:g}"


class MBConv(nn.Module):
    """1×1 expansion → shuffle → depthwise → squeeze-excite → 1×1 projection, and a shortcut where it fits.

    The norm behind the depthwise convolution is switched by the expansion. A block that does not expand
    has neither the first 1×1 nor a shuffle, and its depthwise norm is a fixed one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int, drop: float
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        depthwise = nn.Conv2d(inner, inner, kernel, stride, padding=kernel // 2, groups=inner, bias=False)
        project = WeightEnabledConv2d(inner, out_channels, 1)
        steps: list[nn.Module] = []
        depthwise_norm: nn.Module = nn.BatchNorm2d(inner)
        if expansion > 1:
            expand = WeightEnabledConv2d(in_channels, inner, 1)
            norm = SwitchableBatchNorm2d(inner, fed_by=expand)
            # The shuffle comes last in its row: it has no number of its own, so it moves no other's name.
            steps.append(nn.Sequential(expand, norm, nn.SiLU(inplace=True), ChannelShuffle(inner)))
            depthwise_norm = SwitchableBatchNorm2d(inner, fed_by=expand)
        steps.append(nn.Sequential(depthwise, depthwise_norm, nn.SiLU(inplace=True)))
        steps.append(SqueezeExcite(inner, max(1, in_channels // 4)))
        steps.append(nn.Sequential(project, SwitchableBatchNorm2d(out_channels, fed_by=project)))
        self.block = nn.Sequential(*steps)
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H / stride, W / stride)."""
        out: Tensor = self.block(x)
        return x + self.stochastic_depth(out) if self.has_shortcut else out


class EfficientNetB0(nn.Module):
    """A dense stem, blocks with squeeze-excite, a weight-enabled 1×1 convolution and a dense head.

    Args:
        classes: labels.
        grouped_classifier: 1 makes the head weight-enabled.
    """

    def __init__(self, classes: int = 1000, grouped_classifier: int = 0) -> None:
        super().__init__()
        stem = nn.Conv2d(3, STEM, 3, stride=2, padding=1, bias=False)
        rows: list[nn.Module] = [nn.Sequential(stem, nn.BatchNorm2d(STEM), nn.SiLU(inplace=True))]
        channels, built, total = STEM, 0, sum(count for *_, count in STAGES)
        for expansion, kernel, first_stride, out_channels, count in STAGES:
            blocks = []
            for number in range(count):
                stride = first_stride if number == 0 else 1
                blocks.append(MBConv(channels, out_channels, kernel, stride, expansion, DROP * built / total))
                channels, built = out_channels, built + 1
            rows.append(nn.Sequential(*blocks))
        last = WeightEnabledConv2d(channels, HEAD, 1)
        rows.append(nn.Sequential(last, SwitchableBatchNorm2d(HEAD, fed_by=last), nn.SiLU(inplace=True)))
        self.features = nn.Sequential(*rows)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(DROP), classifier(HEAD, classes, grouped_classifier))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                bound = module.out_features**-0.5
                nn.init.uniform_(module.weight, -bound, bound)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, classes) logits."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits
