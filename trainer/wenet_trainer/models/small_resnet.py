"""The benchmarks' residual network for 3×32×32 images: small enough that dozens are trained side by side."""

from torch import Tensor, nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import MAX_GROUPS
from wenet_trainer.models.digits_resnet import Bottleneck


class SmallResNet(nn.Module):
    """A dense stem to 8×8, a bottleneck that goes down to 4×4, more bottlenecks there, and a dense head.

    Nearly all of the arithmetic lies where the activations are few, so a step costs little beside it.

    Args:
        classes: labels.
        width: channels after the stem, a multiple of 16; the bottlenecks' channels are multiples of it.
        depth: bottlenecks.

    Raises:
        NetworkError: an argument is out of its range.
    """

    def __init__(self, classes: int = 24, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        if classes < 1 or depth < 1 or width < MAX_GROUPS or width % MAX_GROUPS:
            raise NetworkError(
                f"classes {classes}, width {width}, depth {depth} make no network: take at least one class, "
                f"at least one bottleneck, and a width that is a multiple of {MAX_GROUPS}"
            )
        self.stem = nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False)
        self.stem_bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        first = Bottleneck(width, width * 4, width * 8, stride=2)
        channels = (width * 8, *[width * 12] * (depth - 1))
        rest = (Bottleneck(before, width * 6, width * 12) for before in channels[:-1])
        self.blocks = nn.Sequential(first, *rest)
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, classes) logits."""
        x = self.pool(self.relu(self.stem_bn(self.stem(x))))
        logits: Tensor = self.head(self.blocks(x).mean((2, 3)))
        return logits
