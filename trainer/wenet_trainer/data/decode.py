"""Image files → pixels, with the daemon's own steps, so that what is measured here is what is served."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from wenet_trainer.errors import DataError

# Only formats that hold pictures and nothing else: Pillow would hand others to outside programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
_ORIENTATION = 0x0112
# What Pillow's readers raise on damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, TypeError, KeyError)


@dataclass(frozen=True)
class Decoder:
    """Decodes one image file, first frame, upright, and stretches it to a square as `Preprocess` says.

    Attributes:
        side: width and height of the result in pixels.
        color: "RGB" or "L".
        draft: let the JPEG reader skip detail that shrinking would remove: quicker, but not to the bit what the
            daemon computes, so only for training images.
    """

    side: int
    color: str = "RGB"
    draft: bool = False

    def __call__(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """Pixels of one file.

        Args:
            data: the file's bytes.
            name: the file's name, for the message.

        Returns:
            (C, side, side) uint8.

        Raises:
            DataError: empty, too large, damaged or no image; it names the file.
        """
        if not data:
            raise DataError(f"{name} is empty: replace it or take it out")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                limit = Image.MAX_IMAGE_PIXELS
                if limit is not None and image.width * image.height > limit:
                    raise Image.DecompressionBombError
                return self._pixels(image, name)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise DataError(
                f"{name} has more than {Image.MAX_IMAGE_PIXELS} pixels: refused, shrink it or take it out"
            ) from None
        except UnidentifiedImageError:
            raise DataError(f"{name} is no image of a known format ({', '.join(FORMATS)}): take it out") from None
        except _DAMAGED as error:
            raise DataError(
                f"{name} is damaged or cut short ({type(error).__name__}: {error}): replace it or take it out"
            ) from None

    def _pixels(self, image: Image.Image, name: str) -> NDArray[np.uint8]:
        if self.draft:
            image.draft(self.color, (self.side, self.side))
        shown = _upright(image)
        if shown.mode.startswith("F"):
            raise DataError(f"{name} has floating-point pixels, whose range nobody knows: save it with 8 or 16 bits")
        if shown.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip it to white
            shown = Image.fromarray((np.asarray(shown).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        if shown.mode == "P" and "transparency" in shown.info:
            shown = shown.convert("RGBA")
        converted = shown.convert(self.color)
        if converted.size != (self.side, self.side):
            converted = converted.resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = np.array(converted)
        return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says; one whose EXIF is damaged is taken as it lies."""
    try:
        turned = image.getexif().get(_ORIENTATION, 1) not in (None, 1)
    except _DAMAGED:
        turned = False
    return ImageOps.exif_transpose(image) if turned else image
