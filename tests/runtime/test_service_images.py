"""Images: prepared as the bundle says, refused before decoding when too large, never a crash when broken."""

import io
import struct
import zlib
from typing import Any, List

import numpy as np
import pytest
from PIL import Image

from tests.runtime.fakes import Client, check_problem
from wenet_runtime.bundle import Preprocess
from wenet_runtime.service.images import MAX_IMAGE_BYTES, MAX_PIXELS, decode_image
from wenet_runtime.service.problems import Problem

GREY = Preprocess("L", 4, 4, (0.5,), (0.25,))
COLOUR = Preprocess("RGB", 4, 4, (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
PIXELS = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16


def file_of(image: Any, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **how)
    return file.getvalue()


def png(width: int, height: int, *more: bytes) -> bytes:
    """A PNG whose header claims a size, with chunks that need not hold it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_grey_is_scaled_and_normalised() -> None:
    found = decode_image(file_of(PIXELS), GREY)
    assert found.dtype == np.float32
    assert found.shape == (1, 1, 4, 4)
    assert np.allclose(found[0, 0], (PIXELS / 255 - 0.5) / 0.25, atol=1e-5)


def test_each_colour_is_normalised_by_its_own_figures() -> None:
    pixels = np.stack([PIXELS, 255 - PIXELS, PIXELS // 2], axis=2)
    found = decode_image(file_of(pixels), COLOUR)
    assert found.shape == (1, 3, 4, 4)
    wanted = (pixels / 255 - [0.1, 0.2, 0.3]) / [1, 2, 4]
    assert np.allclose(found[0], wanted.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_looking_levels_up_gives_exactly_what_computing_with_each_pixel_does(seed: int) -> None:
    order = np.random.default_rng(seed)
    height, width = (int(size) for size in order.integers(1, 40, 2))
    pixels = order.integers(0, 256, (height, width, 3), np.uint8)
    mean, std = order.normal(size=3), order.uniform(0.01, 3, 3)
    recipe = Preprocess("RGB", height, width, tuple(mean.tolist()), tuple(std.tolist()))
    plain = (pixels.astype(np.float32) / np.float32(255) - mean.astype(np.float32)) / std.astype(np.float32)
    assert np.array_equal(decode_image(file_of(pixels), recipe)[0], plain.transpose(2, 0, 1))


def test_another_size_is_resized() -> None:
    large = np.kron(PIXELS, np.ones((8, 8), np.uint8))
    found = decode_image(file_of(large), GREY)
    assert found.shape == (1, 1, 4, 4)
    assert abs(found[0, 0] - (PIXELS / 255 - 0.5) / 0.25).max() < 0.3


def test_sixteen_bit_grey_is_not_clipped_to_white() -> None:
    deep = file_of(Image.fromarray(PIXELS.astype(np.uint16) * 257))
    assert np.allclose(decode_image(deep, GREY), decode_image(file_of(PIXELS), GREY), atol=0.02)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("preprocess", [GREY, COLOUR])
def test_every_kind_of_png_becomes_the_model_s_colours(mode: str, preprocess: Preprocess) -> None:
    found = decode_image(file_of(Image.fromarray(PIXELS).convert(mode)), preprocess)
    assert found.shape == (1, len(preprocess.mean), 4, 4)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_kind_of_jpeg_becomes_the_model_s_colours(mode: str) -> None:
    assert decode_image(file_of(Image.fromarray(PIXELS).convert(mode), "JPEG"), COLOUR).shape == (1, 3, 4, 4)


def slug_of(data: bytes) -> str:
    with pytest.raises(Problem) as caught:
        decode_image(data, GREY)
    return caught.value.slug


@pytest.mark.parametrize(("width", "height"), [(4097, 4096), (30_000, 30_000), (2**31 - 1, 1), (65_535, 65_535)])
def test_an_image_bomb_is_refused_by_its_header(client: Client, width: int, height: int) -> None:
    response = client.infer(content=png(width, height), headers={"Content-Type": "image/png"})
    check_problem(response, "too-large", 413)
    assert client.infer().status_code == 200


def test_the_largest_size_is_not_refused_for_its_size() -> None:
    assert MAX_PIXELS == 4096 * 4096
    assert slug_of(png(4096, 4096)) == "malformed-request"  # there are no pixels in it


def test_a_file_over_the_limit_is_refused_unread() -> None:
    assert slug_of(bytes(MAX_IMAGE_BYTES + 1)) == "too-large"


def broken_images() -> List[bytes]:
    whole = [file_of(PIXELS), file_of(PIXELS, "JPEG")]
    cut = [data[:length] for data in whole for length in (1, 8, 20, len(data) // 2)]
    text = b"\x00\x00\x00\x00zTXtx\x00\x00" + zlib.compress(bytes(1 << 22))
    return [
        *cut,
        b"",
        b"GIF89a",
        b"<svg/>",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        png(0, 0),
        png(4, 4),
        png(4, 4, text),
    ]


@pytest.mark.parametrize("data", broken_images(), ids=range(len(broken_images())))
def test_a_truncated_or_foreign_file_is_malformed(client: Client, data: bytes) -> None:
    for media in ("image/png", "image/jpeg"):
        check_problem(client.infer(content=data, headers={"Content-Type": media}), "malformed-request", 400)
    assert client.infer().status_code == 200


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP"])
def test_other_formats_are_not_opened(kind: str) -> None:
    assert slug_of(file_of(PIXELS, kind)) == "malformed-request"


def test_no_single_changed_byte_is_more_than_malformed() -> None:
    outcomes = set()
    for data in (file_of(PIXELS), file_of(PIXELS, "JPEG")):
        for at in range(0, len(data), 3):
            changed = bytearray(data)
            changed[at] ^= 0xFF
            try:
                decode_image(bytes(changed), GREY)
            except Problem as problem:
                outcomes.add(problem.slug)
            else:
                outcomes.add("decoded")
    assert outcomes <= {"decoded", "malformed-request", "too-large"}
    assert len(outcomes) > 1


def test_a_transparent_colour_of_a_palette_that_is_not_there_is_the_file_s_fault() -> None:
    whole = file_of(Image.fromarray(PIXELS).quantize(4), "PNG", transparency=0)
    at = whole.index(b"PLTE") - 4
    (length,) = struct.unpack(">I", whole[at : at + 4])
    assert slug_of(whole[:at] + whole[at + 12 + length :]) == "malformed-request"
