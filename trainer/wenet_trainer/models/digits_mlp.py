"""The dense network of the paper's figure 2: weight-enabled linear layers on 1×32×32 images."""

from itertools import pairwise

from torch import Tensor, nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import MAX_GROUPS, ChannelShuffle, WeightEnabledLinear
from wenet_trainer.norms import SwitchableBatchNorm1d

SIDE = 32  # px
PATCH = 8  # px: the image is 16 patches, one for each group


class DenseLayer(nn.Module):
    """Linear → norm → ReLU; the norm takes the bias's place."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = WeightEnabledLinear(inputs, outputs, bias=False)
        self.norm = SwitchableBatchNorm1d(outputs, fed_by=self.linear)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) → (N, outputs)."""
        out: Tensor = self.relu(self.norm(self.linear(x)))
        return out


class DigitsMlp(nn.Module):
    """Weight-enabled linear layers, each half as wide as the one before, shuffles between them, and a dense head.

    The pixels are put in order patch by patch, so that a group of the first layer sees one 8×8 patch or
    neighbouring ones, not a few rows of pixels. The layers narrow, so that few weights are left in the last ones
    at 16 groups.

    Args:
        width: outputs of the first layer; every layer's must be a multiple of 16.
        layers: weight-enabled layers.
        classes: labels.

    Raises:
        NetworkError: a layer's width is no multiple of 16, or there is no layer.
    """

    def __init__(self, width: int = 512, layers: int = 3, classes: int = 10) -> None:
        super().__init__()
        widths = [width // 2**number for number in range(layers)]
        if not widths or width % (MAX_GROUPS * 2 ** (layers - 1)) or width < 1:
            raise NetworkError(
                f"width {width} halved over {layers} layers does not give multiples of {MAX_GROUPS}: take at least "
                f"one layer and a multiple of {MAX_GROUPS * 2 ** max(layers - 1, 0)} as width"
            )
        steps: list[nn.Module] = [DenseLayer(SIDE * SIDE, width)]
        for inputs, outputs in pairwise(widths):
            steps += [ChannelShuffle(inputs), DenseLayer(inputs, outputs)]
        self.layers = nn.Sequential(*steps)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 32, 32) → (N, classes) logits."""
        logits: Tensor = self.head(self.layers(patches(x)))
        return logits


def patches(images: Tensor) -> Tensor:
    """(N, 1, 32, 32) → (N, 1024): the pixels of the first 8×8 patch, then of the one to its right, and so on."""
    count = SIDE // PATCH
    return images.reshape(-1, count, PATCH, count, PATCH).transpose(2, 3).flatten(1)
