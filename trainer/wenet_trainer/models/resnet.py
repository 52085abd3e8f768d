"""ResNet-50 on 3×224×224 images with weight-enabled bottlenecks; named and shaped as torchvision's."""

from torch import Tensor, nn

from wenet_trainer.models.classifier import classifier
from wenet_trainer.models.digits_resnet import Bottleneck

EXPANSION = 4


class ResNet50(nn.Module):
    """A dense stem, four stages of weight-enabled bottlenecks (the stride on the 3×3) and a dense head.

    Args:
        classes: labels.
        width: channels after the stem, a multiple of 16; each stage's inner channels are twice the last one's.
        layers: bottlenecks of each stage.
        grouped_classifier: 1 makes the head weight-enabled.
    """

    def __init__(
        self,
        classes: int = 1000,
        width: int = 64,
        layers: tuple[int, int, int, int] = (3, 4, 6, 3),
        grouped_classifier: int = 0,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(width, width, layers[0], stride=1)
        self.layer2 = _stage(width * 4, width * 2, layers[1], stride=2)
        self.layer3 = _stage(width * 8, width * 4, layers[2], stride=2)
        self.layer4 = _stage(width * 16, width * 8, layers[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = classifier(width * 32, classes, grouped_classifier)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, classes) logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(in_channels: int, inner: int, count: int, stride: int) -> nn.Sequential:
    """(N, in, H, W) → (N, 4 · inner, H / stride, W / stride)."""
    out_channels = inner * EXPANSION
    first = Bottleneck(in_channels, inner, out_channels, stride)
    return nn.Sequential(first, *(Bottleneck(out_channels, inner, out_channels) for _ in range(count - 1)))
