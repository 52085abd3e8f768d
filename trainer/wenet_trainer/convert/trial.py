"""Operations tried on random numbers: do they keep channels apart, do they pool a whole map?"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from wenet_trainer.convert.tracing import FAILURES

MAPS = ((24, 20), (64, 60))  # the second for what the first is too small for, as a pooling of 28 × 28
LARGE_MAP = (232, 224)
FEW_CHANNELS = 2
SEEDS = 4  # a random operation may do nothing under one of them


def permutable(run: Callable[[Tensor], Any], channels: int) -> Tensor | None:
    """What an operation makes of an image, if permuting its channels before or after gives the same; else None.

    The image is the first of `MAPS` that the operation takes. A random one meets the same numbers both times.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(channels, generator=generator)
    for size in MAPS:
        image = torch.randn(2, channels, *size, generator=generator)
        try:
            return _permuted(run, image, order)
        except FAILURES:
            continue
    return None


def pools_whole_map(run: Callable[[Tensor], Any]) -> bool:
    """Whether an operation leaves one position of a map as large as networks have at all, not only of a small one."""
    image = torch.randn(2, FEW_CHANNELS, *LARGE_MAP, generator=torch.Generator().manual_seed(0))
    try:
        found, _ = attempt(run, image)
    except FAILURES:
        return False
    return isinstance(found, Tensor) and found.shape[2:] == (1, 1)


def attempt(run: Callable[[Tensor], Any], image: Tensor, seed: int = 0) -> tuple[Any, bool]:
    """What it makes of a copy of the image under a fixed seed, and whether it drew random numbers.

    torch's own randomness is left as it was.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators for good, too
        before = torch.get_rng_state()
        found = run(image.clone())
        return found, not torch.equal(torch.get_rng_state(), before)


def trial_copy(module: nn.Module, *, training: bool) -> nn.Module:
    """A copy to try, on the CPU and in one mode; but torch's dropouts are off: they drop any channel alike."""
    made = copy.deepcopy(module).float().cpu().train(training)
    for one in made.modules():
        if isinstance(one, _DropoutNd | nn.RReLU):
            one.eval()
    return made


def _permuted(run: Callable[[Tensor], Any], image: Tensor, order: Tensor) -> Tensor | None:
    found = None
    for seed in range(SEEDS):
        found, random = attempt(run, image, seed)
        moved, _ = attempt(run, image[:, order], seed)
        if not isinstance(found, Tensor) or not isinstance(moved, Tensor) or found.dim() != 4 or moved.dim() != 4:
            return None
        if found.shape[:2] != image.shape[:2] or found.shape != moved.shape or not found.is_floating_point():
            return None
        if not torch.allclose(found[:, order], moved, rtol=1e-5, atol=1e-6):
            return None
        if not random:
            break
    return found
