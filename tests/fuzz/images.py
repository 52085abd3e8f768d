"""Images of every kind that the decoder meets: odd, damaged, and made to hurt."""

import base64
import functools
import http.client
import io
import json
import random
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from tests.fuzz.daemon import PATIENCE_S, Daemon, Outcome

PNG, JPEG = "image/png", "image/jpeg"
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Case:
    """A file, what it is said to be, and whether it must be answered."""

    kind: str
    media: str
    data: bytes
    good: bool = False


def _image(rng: random.Random, mode: str, size: "tuple[int, int]") -> Image.Image:
    width, height = size
    if mode == "I;16":
        return Image.frombytes(mode, size, rng.randbytes(2 * width * height))
    if mode == "P":
        return Image.frombytes("RGB", size, rng.randbytes(3 * width * height)).quantize(rng.choice((2, 17, 256)))
    bands = len(Image.new(mode, (1, 1)).getbands())
    grey = Image.frombytes("L", (width * bands, height), rng.randbytes(width * height * bands))
    return grey.resize(size).convert(mode) if mode == "1" else Image.frombytes(mode, size, grey.tobytes())


def _saved(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def _size(rng: random.Random) -> "tuple[int, int]":
    if rng.random() < 0.03:
        return (640, 480)
    return rng.choice(((1, 1), (1, 300), (300, 1), (8, 8), (7, 13), (64, 48), (100, 99), (8, 8), (31, 33)))


def _png(rng: random.Random) -> Case:
    image = _image(rng, rng.choice(MODES), _size(rng))
    return Case("png", PNG, _saved(image, "PNG", compress_level=rng.randrange(10)), good=True)


def _transparent(rng: random.Random) -> Case:
    image = _image(rng, "P", _size(rng))
    return Case("palette", PNG, _saved(image, "PNG", transparency=rng.choice((0, 1, bytes(2)))), good=True)


def _jpeg(rng: random.Random) -> Case:
    image = _image(rng, rng.choice(("L", "RGB", "CMYK")), _size(rng))
    how = {"quality": rng.randint(1, 95), "progressive": rng.random() < 0.5, "optimize": rng.random() < 0.5}
    return Case("jpeg", JPEG, _saved(image, "JPEG", **how), good=True)


def _turned(rng: random.Random) -> Case:
    exif = Image.Exif()
    exif[ORIENTATION] = rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 65535))
    kind, media = rng.choice((("JPEG", JPEG), ("PNG", PNG)))
    return Case("exif", media, _saved(_image(rng, "RGB", _size(rng)), kind, exif=exif), good=True)


def _wrong_exif(rng: random.Random) -> Case:
    exif = b"Exif\0\0" + rng.choice((b"II*\0", b"MM\0*", b"")) + rng.randbytes(rng.randint(0, 200))
    return Case("wrong exif", JPEG, _saved(_image(rng, "RGB", (8, 8)), "JPEG", exif=exif))


def _animated(rng: random.Random) -> Case:
    frames = [_image(rng, "RGB", (32, 32)) for _ in range(rng.randint(2, 6))]
    data = _saved(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=rng.random() < 0.5)
    return Case("animated", PNG, data)


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(width: int, height: int, content: bytes, *, depth: int = 8, colour: int = 0, more: bytes = b"") -> bytes:
    """A PNG that says this size, whatever its content is."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@functools.lru_cache
def _zeros(length: int) -> bytes:
    """So many zeros, compressed."""
    return zlib.compress(bytes(length), 9)


def _bomb(rng: random.Random) -> Case:
    zeros, text = _zeros(rng.choice((1 << 16, 1 << 24))), _zeros(64 << 20)
    made: tuple[Callable[[], bytes], ...] = (
        lambda: png_of(65535, 65535, zeros),
        lambda: png_of(65535, rng.choice((1, 256, 257)), zeros),
        lambda: png_of(2**31 - 1, 2**31 - 1, zeros),
        lambda: png_of(4096, 4096, zeros),
        lambda: png_of(0, 5, zeros),
        lambda: png_of(8, 8, zeros),
        lambda: png_of(8, 8, zlib.compress(bytes(72)), more=chunk(b"zTXt", b"x\0\0" + text)),
        lambda: png_of(8, 8, zlib.compress(bytes(72)), more=chunk(b"iCCP", b"x\0\0" + text)),
        lambda: png_of(8, 8, zlib.compress(bytes(72)), more=chunk(b"iTXt", b"x\0\1\0\0\0" + text)),
        lambda: png_of(8, 8, zlib.compress(bytes(72)), more=chunk(b"tEXt", b"x\0y") * 5000),
    )
    return Case("bomb", PNG, rng.choice(made)())


def _odd_head(rng: random.Random) -> Case:
    depth, colour = rng.choice((0, 1, 2, 3, 4, 8, 16, 32, 255)), rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 255))
    return Case("odd head", PNG, png_of(8, 8, zlib.compress(rng.randbytes(600)), depth=depth, colour=colour))


def _wide_jpeg(rng: random.Random) -> Case:
    data = bytearray(_saved(_image(rng, "RGB", (64, 64)), "JPEG"))
    at = data.index(b"\xff\xc0") + 5  # height and width of the frame
    height, width = rng.choice(((65535, 65535), (1, 65535), (65535, 1), (4000, 4000), (0, 64), (64, 0), (65535, 200)))
    data[at : at + 4] = struct.pack(">HH", height, width)
    return Case("wide jpeg", JPEG, bytes(data))


def _truncated(rng: random.Random) -> Case:
    one = rng.choice((_png, _jpeg, _turned, _animated))(rng)
    return Case("truncated", one.media, one.data[: rng.randrange(len(one.data))])


def _mutated(rng: random.Random) -> Case:
    one = rng.choice((_png, _jpeg, _turned, _transparent, _animated))(rng)
    data = bytearray(one.data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(100, len(data)))
        data[at] = rng.randrange(256)
    return Case("mutated", one.media, bytes(data))


def _mended(rng: random.Random) -> Case:
    """A PNG whose chunks were changed and whose checksums are right: what a checksum keeps out gets further."""
    data, at, made = _transparent(rng).data, 8, b"\x89PNG\r\n\x1a\n"
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, content = data[at + 4 : at + 8], bytearray(data[at + 8 : at + 8 + length])
        if content and rng.random() < 0.4:
            content[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.1:
            content = content[: rng.randrange(len(content) + 1)]
        for _ in range(0 if rng.random() < 0.1 else 1 + (rng.random() < 0.1)):
            made += chunk(name, bytes(content))
        at += 12 + length
    return Case("mended", PNG, made)


def _other(rng: random.Random) -> Case:
    kinds = ("GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PDF", "EPS")
    kind = rng.choice(kinds)
    try:
        data = _saved(_image(rng, "RGB", (32, 32)), kind)
    except (OSError, KeyError, ValueError):  # not in this Pillow
        data = rng.randbytes(100)
    return Case("other format", rng.choice((PNG, JPEG, f"image/{kind.lower()}")), data)


def _nothing(rng: random.Random) -> Case:
    starts = (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", b"BM", b"GIF89a", b"\0" * 8)
    return Case("nothing", rng.choice((PNG, JPEG)), rng.choice(starts) + rng.randbytes(rng.randint(0, 50)))


MAKERS: "tuple[Callable[[random.Random], Case], ...]" = (
    _png, _transparent, _jpeg, _turned, _wrong_exif, _animated, _bomb, _odd_head, _wide_jpeg, _truncated, _mutated,
    _mended, _other, _nothing, _mutated, _mended,
)  # fmt: skip


def case(seed: int, number: int) -> Case:
    """The case of a number: the same ever again."""
    return MAKERS[number % len(MAKERS)](random.Random(f"{seed}/{number}"))


def _sent(one: Case, number: int) -> "tuple[bytes, dict[str, str]]":
    """In which of the three forms an image may come: alone, in JSON, or as a tensor of bytes."""
    if number % 3 == 1:
        return json.dumps({"image_b64": base64.b64encode(one.data).decode()}).encode(), {
            "Content-Type": "application/json"
        }
    if number % 3 == 2:
        content = len(one.data).to_bytes(4, "little") + one.data
        tensor = {"name": "input", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(content)}}
        head = json.dumps({"inputs": [tensor]}).encode()
        return head + content, {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
        }
    return one.data, {"Content-Type": one.media}


def _run(daemon: Daemon, outcome: Outcome, seed: int, numbers: range) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE_S)
    for number in numbers:
        one = case(seed, number)
        outcome.cases += 1
        outcome.kinds[one.kind] += 1
        body, headers = _sent(one, number)
        try:
            connection.request("POST", "/infer", body, headers)
            reply = connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException) as error:
            outcome.failed(f"image {number} ({one.kind}): no answer: {error!r}")
            connection.close()
            if daemon.process.poll() is not None:
                return
            continue
        outcome.answered(reply.status, f"image {number} ({one.kind})")
        if one.good and reply.status != 200:
            outcome.failed(f"image {number} ({one.kind}) is right and was answered {reply.status}: {content[:200]!r}")
    connection.close()


def fuzz(daemon: Daemon, count: int, seed: int = 0) -> Outcome:
    """Try `count` images; the daemon is checked before and after."""
    outcome = Outcome()
    start_s = time.monotonic()
    first = max(1, count // 10)
    daemon.check(outcome)
    _run(daemon, outcome, seed, range(first))
    daemon.check(outcome)
    if daemon.process.poll() is None:
        before_mb = daemon.rss_mb
        _run(daemon, outcome, seed, range(first, count))
        daemon.check(outcome)
        if daemon.process.poll() is None:
            outcome.grown_mb = daemon.rss_mb - before_mb
    outcome.took_s = time.monotonic() - start_s
    return outcome
