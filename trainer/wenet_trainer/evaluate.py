"""How accurate a configuration is, and which batch-norm statistics it needs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wenet_runtime.bundle import Accuracy
from wenet_trainer.errors import NetworkError
from wenet_trainer.supernet import active_norms, set_active

BATCH = 256


def wilson(correct: int, images: int, z: float = 1.959964) -> Accuracy:
    """An accuracy with its 95 % Wilson interval (Wilson 1927), which stays inside 0–1."""
    if not 0 <= correct <= images or images == 0:
        raise NetworkError(f"{correct} correct of {images} images is no accuracy: give at least one image")
    share = correct / images
    centre = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    return Accuracy(share, max(0.0, centre - half), min(1.0, centre + half), images)


def logits(net: nn.Module, inputs: Tensor) -> Tensor:
    """The network's answers in evaluation mode with the active configuration: (N, classes)."""
    was_training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            return torch.cat([net(batch) for batch in torch.split(inputs, BATCH)])
    finally:
        net.train(was_training)


def accuracy(net: nn.Module, config: Mapping[str, int], inputs: Tensor, labels: NDArray[np.int64]) -> Accuracy:
    """Share of right answers of a configuration with the statistics that are loaded now.

    Args:
        net: the supernet; the configuration stays active.
        config: groups per layer.
        inputs: (N, C, H, W) normalised.
        labels: (N,) class indices.
    """
    set_active(net, config)
    answers = logits(net, inputs).argmax(1).numpy()
    return wilson(int((answers == labels).sum()), len(labels))


@contextmanager
def recalibrated(net: nn.Module, config: Mapping[str, int], inputs: Tensor) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Run with the configuration's own batch-norm statistics; the stored ones return afterwards.

    A norm is switched by its own layer's pattern, but what it sees depends on all the others too, so
    each mode needs statistics of its own. They are the plain average over the batches, in order.

    Args:
        net: the supernet; the configuration is activated.
        config: groups per layer.
        inputs: (N, C, H, W) normalised training images.

    Yields:
        The statistics: name of each active `running_mean` and `running_var` → values.
    """
    set_active(net, config)
    norms = active_norms(net)
    kept = {name: (norm.running_mean, norm.running_var, norm.num_batches_tracked) for name, norm in norms.items()}
    momentum = {name: norm.momentum for name, norm in norms.items()}
    training = {id(module): module.training for module in net.modules()}
    try:
        net.eval()
        for norm in norms.values():
            norm.running_mean = torch.zeros_like(_present(norm.running_mean))
            norm.running_var = torch.ones_like(_present(norm.running_var))
            norm.num_batches_tracked = torch.zeros_like(_present(norm.num_batches_tracked))
            norm.momentum = None  # torch's word for a cumulative average
            norm.training = True
        with torch.no_grad():
            for batch in _even_batches(inputs):
                net(batch)
        net.eval()
        yield {
            f"{name}.{key}": _present(value).numpy().astype(np.float32)
            for name, norm in norms.items()
            for key, value in (("running_mean", norm.running_mean), ("running_var", norm.running_var))
        }
    finally:
        for name, norm in norms.items():
            norm.running_mean, norm.running_var, norm.num_batches_tracked = kept[name]
            norm.momentum = momentum[name]
        for module in net.modules():
            module.training = training[id(module)]


def recalibrate(net: nn.Module, config: Mapping[str, int], inputs: Tensor) -> dict[str, NDArray[np.float32]]:
    """The configuration's batch-norm statistics by tensor name; the network's own stay as they are."""
    with recalibrated(net, config, inputs) as statistics:
        return statistics


def _even_batches(inputs: Tensor) -> tuple[Tensor, ...]:
    # Equal batches, because each counts the same in a cumulative average.
    return torch.tensor_split(inputs, max(1, round(len(inputs) / BATCH)))


def _present(value: Tensor | None) -> Tensor:
    if value is None:
        raise NetworkError("a batch norm keeps no running statistics: build it with track_running_stats=True")
    return value
