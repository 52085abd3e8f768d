"""Image bodies → input tensors: size checked by the header before anything is decoded."""

import contextlib
import functools
import io
import struct
import zlib
from typing import Any, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wenet_runtime.bundle import Preprocess
from wenet_runtime.service.problems import Problem

MAX_IMAGE_BYTES = 8 << 20
MAX_PIXELS = 16_777_216
MAX_BATCH_PIXELS = 4 * MAX_PIXELS  # of all images of one request: some seconds of decoding
# What Pillow's JPEG and PNG readers raise on damaged files.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, TypeError, KeyError,
    AssertionError, AttributeError,  # of a palette that is not there
)  # fmt: skip


def decode_image(data: "bytes | memoryview", preprocess: Preprocess) -> NDArray[Any]:
    """Decode one JPEG or PNG and prepare it as the bundle says.

    Args:
        data: the file's bytes.
        preprocess: colour, size and normalisation of the model's input.

    Returns:
        (1, channels, height, width), float32.

    Raises:
        Problem: too-large or malformed-request.
    """
    with _opened(data) as image:
        pixels = _prepared(image, preprocess)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    values = _values(preprocess)
    found = np.empty((1, len(values), *pixels.shape[:2]), np.float32)
    for channel, of_level in enumerate(values):
        # There are 256 levels: looking each up is four times as quick as computing with every pixel.
        np.take(of_level, pixels[:, :, channel], out=found[0, channel], mode="clip")
    return found


@functools.lru_cache(maxsize=8)
def _values(preprocess: Preprocess) -> NDArray[Any]:
    """What the model is given for each level of each channel, (channels, 256)."""
    scaled = (np.arange(256).astype(np.float32) / np.float32(255))[:, None]
    mean = np.asarray(preprocess.mean, np.float32)
    std = np.asarray(preprocess.std, np.float32)
    return np.ascontiguousarray(((scaled - mean) / std).T)


def decode_images(files: "Sequence[bytes | memoryview]", preprocess: Preprocess) -> NDArray[Any]:
    """Decode several; all their sizes are looked at before any of them is decoded.

    Returns:
        (files, channels, height, width), float32.

    Raises:
        Problem: as `decode_image`, too-large also for more than `MAX_BATCH_PIXELS` together.
    """
    pixels = sum(image_pixels(data) for data in files)
    if pixels > MAX_BATCH_PIXELS:
        raise Problem("too-large", f"the images have {pixels} pixels together, at most {MAX_BATCH_PIXELS} are taken")
    return np.concatenate([decode_image(data, preprocess) for data in files])


def image_pixels(data: "bytes | memoryview") -> int:
    """How many pixels a file has, of which only the head is read. Raises `Problem` as `decode_image`."""
    with _opened(data) as image:
        return int(image.width * image.height)


@contextlib.contextmanager
def _opened(data: "bytes | memoryview") -> Iterator[Image.Image]:
    """The image, its size checked and nothing decoded yet; what is wrong with it is the client's error."""
    if len(data) > MAX_IMAGE_BYTES:
        raise Problem("too-large", f"the image has {len(data)} bytes, at most {MAX_IMAGE_BYTES} are taken")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            _check_pixels(image)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Problem("too-large", f"the image has more than {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise Problem("malformed-request", "the body is no JPEG or PNG image: send the file as it is") from None
    except _DAMAGED as error:
        raise Problem("malformed-request", f"the image is damaged or cut short ({type(error).__name__})") from None


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Problem("too-large", f"the image has {image.width}×{image.height} pixels, at most {MAX_PIXELS} are taken")


def _prepared(image: Image.Image, preprocess: Preprocess) -> NDArray[Any]:
    """Decode, convert to the model's colours and size. (height, width) or (height, width, 3), 0–255."""
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip it to white
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    converted = image if image.mode == preprocess.color else image.convert(preprocess.color)
    if converted.size != (preprocess.width, preprocess.height):
        converted = converted.resize((preprocess.width, preprocess.height), Image.Resampling.BILINEAR)
    return np.asarray(converted)


def warm_up(preprocess: Preprocess) -> None:
    """Decode an image of each format once: the first one loads the decoder, for milliseconds."""
    blank = Image.new(preprocess.color, (preprocess.width, preprocess.height))
    for kind in ("JPEG", "PNG"):
        file = io.BytesIO()
        blank.save(file, kind)
        decode_image(file.getvalue(), preprocess)
