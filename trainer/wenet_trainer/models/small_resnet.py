"""The benchmarks' residual network for 3×32×32 images: small enough that dozens are trained side by side."""

from torch import Tensor, nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import MAX_GROUPS
from wenet_trainer.models.digits_resnet import Bottleneck


class SmallResNet(nn.Module):
    """A dense stem to 8×8, bottlenecks at 4×4 and one to 2×2, and a dense head.

    Its channels are as many as those of ResNet-50's first stages, so that 16 groups are left some each,
    and lie where the activations are few, so that a step costs little beside the arithmetic.

    Args:
        classes: labels.
        width: channels after the stem, a multiple of 16; the bottlenecks' channels are multiples of it.
        depth: bottlenecks, the first and the last of which halve the sides.

    Raises:
        NetworkError: an argument is out of its range.
    """

    def __init__(self, classes: int = 24, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        if classes < 1 or depth < 2 or width < MAX_GROUPS or width % MAX_GROUPS:
            raise NetworkError(
                f"classes {classes}, width {width}, depth {depth} make no network: take at least one class, "
                f"at least two bottlenecks, and a width that is a multiple of {MAX_GROUPS}"
            )
        self.stem = nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False)
        self.stem_bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        between = (Bottleneck(width * 8, width * 4, width * 8) for _ in range(depth - 2))
        self.blocks = nn.Sequential(
            Bottleneck(width, width * 2, width * 8, stride=2),
            *between,
            Bottleneck(width * 8, width * 4, width * 16, stride=2),
        )
        self.head = nn.Linear(width * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, classes) logits."""
        x = self.pool(self.relu(self.stem_bn(self.stem(x))))
        logits: Tensor = self.head(self.blocks(x).mean((2, 3)))
        return logits
