"""The last layer of the paper's networks: dense, or weight-enabled so that it is a knob like the others.

No shuffle stands before a grouped one. The classifier is trained together with the layer before it, so each
group of channels learns to serve its own group of classes. In a residual network the channels before it are
a sum over a whole stage: a published checkpoint fixes their order, and no single layer's rows could undo a shuffle.
"""

from torch import nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import WeightEnabledLinear


def classifier(channels: int, classes: int, grouped: int) -> nn.Linear:
    """A layer (N, channels) → (N, classes) with a bias; its names and shapes are the same either way.

    Args:
        channels: after pooling.
        classes: labels.
        grouped: 0 for a dense layer, 1 for a weight-enabled one.

    Raises:
        NetworkError: `grouped` is neither, or the classes cannot be divided.
    """
    if grouped not in (0, 1):
        raise NetworkError(
            f"grouped_classifier is {grouped}: give 0 for a dense classifier, 1 for a weight-enabled one"
        )
    if not grouped:
        return nn.Linear(channels, classes)
    layer = WeightEnabledLinear(channels, classes)
    if layer.groups_allowed == (1,):
        raise NetworkError(
            f"{classes} classes cannot be divided into two groups: take an even number, or a dense classifier"
        )
    return layer
