import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.trainer.data.images import encode, pixels
from wenet_runtime.bundle import Preprocess
from wenet_runtime.service.images import decode_image
from wenet_trainer.data.base import normalise
from wenet_trainer.data.decode import Decoder
from wenet_trainer.errors import DataError

PICTURE = Image.fromarray(pixels(7, (61, 45)))
SIXTEEN = Image.fromarray((np.random.default_rng(1).integers(0, 1 << 16, (45, 61))).astype(np.uint16))
CLEAR = PICTURE.convert("P")
CLEAR.info["transparency"] = bytes(range(0, 256, 2)) * 2


@pytest.mark.parametrize("color", ["RGB", "L"])
@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (PICTURE, "PNG"),
        (PICTURE, "JPEG"),
        (PICTURE.convert("L"), "JPEG"),
        (PICTURE.convert("CMYK"), "JPEG"),
        (PICTURE.convert("P"), "PNG"),
        (PICTURE.convert("RGBA"), "PNG"),
        (PICTURE.convert("LA"), "PNG"),
        (PICTURE.convert("1"), "PNG"),
        (SIXTEEN, "PNG"),
        (PICTURE.resize((24, 24)), "PNG"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode,
)
def test_a_validation_image_is_to_the_bit_what_the_daemon_feeds_the_network(image, kind, color):
    channels = 1 if color == "L" else 3
    recipe = Preprocess(color, 24, 24, (0.4,) * channels, (0.3,) * channels)
    data = encode(image, kind)
    served = decode_image(data, recipe)
    assert np.abs(normalise(Decoder(24, color)(data, "x")[None], recipe).numpy() - served).max() < 1e-6
    turned = Decoder(24, color)(encode(image.transpose(Image.Transpose.ROTATE_180), kind), "x")
    assert np.abs(normalise(turned[None], recipe).numpy() - served).max() > 0.1  # the comparison can fail


def test_transparent_palettes_webp_and_deep_grey_become_plain_pixels():
    for image, kind in ((CLEAR, "PNG"), (PICTURE, "WEBP"), (PICTURE, "BMP"), (PICTURE, "GIF"), (PICTURE, "TIFF")):
        found = Decoder(61)(encode(image, kind), "x")
        assert found.shape == (3, 61, 61)
        assert found.dtype == np.uint8
        assert found.std() > 20
    deep = Decoder(61, "L")(encode(SIXTEEN), "x")
    assert 120 < deep.mean() < 135  # clipping to 8 bits would give 255


def test_an_image_is_turned_upright_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    PICTURE.save(file, "PNG", exif=exif)
    upright = encode(PICTURE.transpose(Image.Transpose.ROTATE_270))
    assert (Decoder(20)(file.getvalue(), "x") == Decoder(20)(upright, "x")).all()
    assert (Decoder(20)(file.getvalue(), "x") != Decoder(20)(encode(PICTURE), "x")).any()


def test_a_drafted_jpeg_looks_like_the_full_one():
    smooth = Image.fromarray(pixels(3, (8, 8))).resize((640, 640), Image.Resampling.BICUBIC)
    data = encode(smooth, "JPEG")
    difference = np.abs(Decoder(64)(data, "x").astype(int) - Decoder(64, draft=True)(data, "x"))
    assert difference.mean() < 2


def bomb() -> bytes:
    """A PNG whose header promises 20,000 × 20,000 pixels."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + bytes(9)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "birds/7.jpg is empty"),
        (b"not an image", "birds/7.jpg is no image of a known format"),
        (encode(PICTURE, "JPEG")[:900], "birds/7.jpg is damaged or cut short"),
        (encode(PICTURE, "PNG")[:900], "birds/7.jpg is damaged or cut short"),
        (bomb(), "birds/7.jpg has more than [0-9]+ pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "birds/7.jpg is no image"),
        (encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "birds/7.jpg has floating-point pixels"),
    ],
    ids=["empty", "text", "cut JPEG", "cut PNG", "bomb", "PostScript", "floats"],
)
def test_an_image_that_cannot_be_read_is_named(data, message):
    with pytest.raises(DataError, match=message):
        Decoder(24)(data, "birds/7.jpg")
