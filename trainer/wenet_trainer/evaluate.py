"""How accurate a configuration is, and which batch-norm statistics it needs."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wenet_runtime.bundle import Accuracy, Preprocess
from wenet_trainer.data.base import Images, normalise
from wenet_trainer.errors import NetworkError
from wenet_trainer.norms import BatchNorm
from wenet_trainer.supernet import active_norms, set_active

BATCH = 256


def wilson(correct: int, images: int, effective: float | None = None, z: float = 1.959964) -> Accuracy:
    """An accuracy with its 95 % Wilson interval (Wilson 1927), which stays inside 0–1.

    Args:
        correct: right answers.
        images: answers.
        effective: how many independent images they are worth, see `effective_images`; all by default.
        z: half width of the interval in standard deviations.
    """
    if not 0 <= correct <= images or images == 0:
        raise NetworkError(f"{correct} correct of {images} images is no accuracy: give at least one image")
    share, n = correct / images, effective or images
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Accuracy(share, max(0.0, centre - half), min(1.0, centre + half), images)


def effective_images(right: NDArray[np.bool_], origins: NDArray[np.int64] | None) -> float:
    """How many independent images the answers are worth when some are views of the same original.

    Views of one original tend to be right or wrong together. The design effect (Kish 1965) says how
    much that widens the interval: the variance of the share with originals as the units,
    Σ_o (right_o - share·views_o)² / N², over that of N independent answers, share·(1 - share) / N.
    It is never taken below 1. When all answers are right, or all wrong, nothing varies, so the
    originals are counted: the cautious end.

    Args:
        right: (N,) whether each answer is right.
        origins: (N,) the original of each image; None when every image has its own.

    Returns:
        N over the design effect: N when all originals differ, their number when views are copies.
    """
    if origins is None or not len(right):
        return float(len(right))
    _, index = np.unique(origins, return_inverse=True)
    views, share = np.bincount(index), right.mean()
    if share in (0.0, 1.0):
        return float(len(views))
    excess = np.bincount(index, weights=right) - share * views
    design_effect = float((excess**2).sum() / (len(right) * share * (1 - share)))
    return len(right) / max(1.0, design_effect)


def logits(net: nn.Module, inputs: Tensor) -> Tensor:
    """The network's answers in evaluation mode with the active configuration: (N, classes)."""
    return _answers(net, torch.split(inputs, BATCH))


def _answers(net: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    was_training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            return torch.cat([net(batch.to(device_of(net))) for batch in batches])
    finally:
        net.train(was_training)


def accuracy(
    net: nn.Module,
    config: Mapping[str, int],
    inputs: Tensor,
    labels: NDArray[np.int64],
    origins: NDArray[np.int64] | None = None,
) -> Accuracy:
    """Share of right answers of a configuration with the statistics that are loaded now.

    Args:
        net: the supernet; the configuration stays active.
        config: groups per layer.
        inputs: (N, C, H, W) normalised.
        labels: (N,) class indices.
        origins: (N,) the original each input is a view of, which widens the interval; None: all differ.
    """
    set_active(net, config)
    return _accuracy_of(logits(net, inputs), labels, origins)


def accuracy_on(net: nn.Module, config: Mapping[str, int], images: Images, recipe: Preprocess) -> Accuracy:
    """`accuracy` on images that become inputs batch by batch: 5,000 of 224 × 224 are 3 GB as inputs, but 0.75 GB here.

    Args:
        net: the supernet, on any device; the configuration stays active.
        config: groups per layer.
        images: what it is shown.
        recipe: how an image becomes an input.
    """
    set_active(net, config)
    return _accuracy_of(_answers(net, input_batches(images, recipe)), images.labels, images.origins)


def input_batches(images: Images, recipe: Preprocess) -> Iterator[Tensor]:
    """Images as inputs, batch by batch: (up to `BATCH`, C, H, W) float32 each."""
    for start in range(0, max(1, len(images)), BATCH):
        yield normalise(images.pixels[start : start + BATCH], recipe)


def _accuracy_of(answers: Tensor, labels: NDArray[np.int64], origins: NDArray[np.int64] | None) -> Accuracy:
    return share_right(answers.argmax(1).cpu().numpy() == labels, origins)


def share_right(right: NDArray[np.bool_], origins: NDArray[np.int64] | None) -> Accuracy:
    """The accuracy behind right and wrong answers: (N,) each, and which original each image is a view of."""
    return wilson(int(right.sum()), len(right), effective_images(right, origins))


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
    with statistics_kept(net, norms.values()):
        net.eval()
        for norm in norms.values():
            norm.running_mean, norm.running_var, norm.num_batches_tracked = fresh_statistics(norm)
            norm.momentum = None  # torch's word for a cumulative average
            norm.training = True
        with torch.no_grad():
            for batch in even_batches(inputs):
                net(batch.to(device_of(net)))
        net.eval()
        yield {
            f"{name}.{key}": value.cpu().numpy().astype(np.float32)
            for name, norm in norms.items()
            if norm.num_batches_tracked  # else evaluation does not run it
            for key, value in (("running_mean", norm.running_mean), ("running_var", norm.running_var))
            if value is not None
        }


@contextmanager
def statistics_kept(net: nn.Module, norms: Iterable[BatchNorm]) -> Iterator[None]:
    """Afterwards these batch norms have their statistics and momentum again, and every module its mode."""
    kept = [(norm, norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum) for norm in norms]
    training = [(module, module.training) for module in net.modules()]
    try:
        yield
    finally:
        for norm, mean, variance, batches, momentum in kept:
            norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, batches
            norm.momentum = momentum
        for module, mode in training:
            module.training = mode


def fresh_statistics(norm: BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    """A norm's mean, variance and count before it has seen a batch.

    Raises:
        NetworkError: it keeps none.
    """
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        raise NetworkError("a batch norm keeps no running statistics: build it with track_running_stats=True")
    return (
        torch.zeros_like(norm.running_mean),
        torch.ones_like(norm.running_var),
        torch.zeros_like(norm.num_batches_tracked),
    )


def even_batches(inputs: Tensor) -> tuple[Tensor, ...]:
    """Batches of about `BATCH`, all equal, because each counts the same in a cumulative average."""
    return torch.tensor_split(inputs, max(1, round(len(inputs) / BATCH)))


def device_of(net: nn.Module) -> torch.device:
    """Where the network's parameters lie."""
    return next(net.parameters()).device
