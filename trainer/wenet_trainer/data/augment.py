"""Augmentation of training batches with kornia, on whatever device the batch is on."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wenet_trainer.data.base import stretched
from wenet_trainer.errors import DataError

if TYPE_CHECKING:
    from kornia.augmentation import RandomResizedCrop

AUGMENTATIONS = ("none", "flip", "standard", "strong")
# Milder than the usual 8 %: the stored images are hardly larger than the input, and small networks underfit.
SCALE = (0.25, 1.0)
RATIO = (3 / 4, 4 / 3)

Augment = Callable[[Tensor], Tensor]


def augmentation(name: str, size: int) -> Augment:
    """What is done to a training batch before it is normalised.

    All draws come from torch's global random numbers on the CPU, so `torch.manual_seed` fixes them on any device.

    Args:
        name: `none` (only brought to `size`, as for validation), `flip` (mirrored or not), `standard` (a random
            part of the image, resized, mirrored or not), `strong` (also colour, grey and erased patches).
        size: width and height of the network's input in pixels.

    Returns:
        A function of (N, C, H, W) float in 0–1 that gives (N, C, size, size) in 0–1.

    Raises:
        DataError: an unknown name, or kornia is missing.
    """
    if name not in AUGMENTATIONS:
        raise DataError(f"unknown augmentation '{name}': known are {', '.join(AUGMENTATIONS)}")
    if name == "none":
        return _Resize(size)
    try:
        from kornia.augmentation import RandomHorizontalFlip
    except ImportError as error:
        raise DataError(
            f"augmentation '{name}' needs the package kornia ({error}): pip install 'wenet-trainer[data]', "
            "or --augment none"
        ) from None
    frame = _Resize(size) if name == "flip" else _Crop(size)
    colour = [_Strong()] if name == "strong" else []
    return _Pipeline(frame, RandomHorizontalFlip(p=0.5), *colour)


class _Pipeline:
    """Steps one after another, without gradients, clipped to 0–1."""

    def __init__(self, *steps: nn.Module) -> None:
        self._steps = steps

    def __call__(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            for step in self._steps:
                images = step(images)
            return images.clamp(0.0, 1.0)


class _Resize(nn.Module):
    """Stretched to size × size like a validation image; as it is, if it has that size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = (size, size)

    def forward(self, images: Tensor) -> Tensor:
        return stretched(images, self._size)


class _Crop(nn.Module):
    """A random part of each image; the same draws on either device."""

    def __init__(self, size: int) -> None:
        super().__init__()
        # Cutting image by image is quicker on a CPU; one sampling grid for all on an accelerator.
        self._one_by_one, self._at_once = _crop(size, "slice"), _crop(size, "resample")

    def forward(self, images: Tensor) -> Tensor:
        crop = self._one_by_one if images.device.type == "cpu" else self._at_once
        result: Tensor = crop(images)
        return result


def _crop(size: int, mode: str) -> "RandomResizedCrop":
    from kornia.augmentation import RandomResizedCrop

    return RandomResizedCrop((size, size), scale=SCALE, ratio=RATIO, cropping_mode=mode)


class _Strong(nn.Module):
    """Brightness, contrast and saturation, sometimes grey, sometimes a patch erased.

    Not the hue: it would take five times as long as all the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        from kornia.augmentation import (
            ColorJitter,
            RandomBrightness,
            RandomContrast,
            RandomErasing,
            RandomGrayscale,
        )

        self._colour = nn.Sequential(
            ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, p=0.8), RandomGrayscale(p=0.1)
        )
        self._grey = nn.Sequential(RandomBrightness((0.6, 1.4), p=0.8), RandomContrast((0.6, 1.4), p=0.8))
        self._erase = RandomErasing(scale=(0.02, 0.2), p=0.25, value=0.5)

    def forward(self, images: Tensor) -> Tensor:
        tinted = (self._colour if images.shape[1] == 3 else self._grey)(images)
        result: Tensor = self._erase(tinted)
        return result
