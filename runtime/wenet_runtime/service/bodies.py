"""Request bodies → input tensors, in every format of HTTP API v1 section 4."""

import base64
import binascii
import io
import re
from typing import Any, Dict, List, Optional

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from wenet_runtime.bundle import Manifest, TensorSpec
from wenet_runtime.service.images import decode_image, image_pixels
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.v2binary import MAX_HEADER_BYTES, binary_tensor
from wenet_runtime.service.v2json import check_amount, elements, parse_json
from wenet_runtime.service.v2request import Decoded, check_tensor, decode_v2, decode_v2_binary, with_wishes

MAX_BODY_BYTES = 16 << 20
MAX_NPY_HEADER_BYTES = 10 << 10
# Decoding these is quicker than handing them to another thread.
QUICK_BYTES = 64 << 10
QUICK_PIXELS = 512 * 512

_LENGTH = re.compile(r"[0-9]{1,20}")
_ZIP = b"PK\x03\x04"

JSON = "application/json"
OCTETS = "application/octet-stream"
NPY = "application/x-npy"
IMAGES = ("image/jpeg", "image/png")


class Cut(Problem):
    """There is nobody left to answer."""


def check_length(request: Request) -> None:
    """Whether the body that a head announces is taken. Raises `Problem`."""
    declared = request.headers.get("content-length")
    coding = request.headers.get("transfer-encoding")
    if declared is not None and coding is not None:
        raise Problem("malformed-request", "the body has both a Content-Length and a Transfer-Encoding: send one")
    if coding is not None and coding.strip().lower() != "chunked":
        raise Problem("unsupported-media", "compressed bodies are not taken: send it as it is, or chunked")
    if declared is not None and not _LENGTH.fullmatch(declared):
        raise Problem("malformed-request", "Content-Length is not a number of bytes")
    if declared is not None and int(declared) > MAX_BODY_BYTES:
        raise _too_large()


async def read_body(request: Request) -> bytes:
    """The whole body, counted while it streams in. Raises `Problem` too-large without taking the rest."""
    pieces: List[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()  # `request.stream()` takes as long again
        if message["type"] == "http.disconnect":
            raise Cut("malformed-request", "the connection ended before the body did")
        piece = message.get("body", b"")
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        pieces.append(piece)
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large() -> Problem:
    return Problem("too-large", f"the body is larger than {MAX_BODY_BYTES} bytes", headers={"Connection": "close"})


def media_type(request: Request) -> str:
    """The body's media type without parameters. Raises `Problem` unsupported-media."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Problem("unsupported-media", "compressed bodies are not taken: send it without Content-Encoding")
    given = request.headers.get("content-type")
    if given is None:
        return OCTETS if "inference-header-content-length" in request.headers else JSON
    media = given.split(";", 1)[0].strip().lower()
    if media not in (JSON, OCTETS, NPY, *IMAGES):
        raise Problem(
            "unsupported-media",
            f"Content-Type '{media[:60]}' is not taken: send {JSON}, {OCTETS}, {NPY} or {' or '.join(IMAGES)}",
        )
    return media


def decodes_quickly(media: str, body: bytes, header_length: Optional[str]) -> bool:
    """Whether a body may be decoded on the event loop. Raises `Problem` for an image that is none."""
    if media in IMAGES:
        return len(body) <= QUICK_BYTES and image_pixels(body) <= QUICK_PIXELS
    if media == NPY:
        return True  # numbers stay where they are, whatever their amount
    if media == JSON:
        text, marker = body, b"image_b64"
    else:
        text, marker = body[: _length(header_length)], b"BYTES"
    # A small image may have many pixels, and its name may hide behind JSON's escapes.
    return len(text) <= QUICK_BYTES and marker not in text and b"\\" not in text


def _length(header: Optional[str]) -> int:
    """How much of a body is JSON as far as that is needed; 0 if the header makes no sense."""
    found = _LENGTH.fullmatch((header or "").strip())
    return min(MAX_HEADER_BYTES, int(found.group())) if found else 0


def decode(
    media: str, body: bytes, header_length: Optional[str], manifest: Manifest, *, image_b64: bool = True
) -> Decoded:
    """Decode a body.

    Args:
        media: what `media_type` returned.
        body: all of it.
        header_length: the `Inference-Header-Content-Length` header.
        manifest: the model's inputs, preprocessing and largest batch.
        image_b64: whether JSON may hold an image in base64.

    Raises:
        Problem: malformed-request, invalid-tensor, too-large or unsupported-media.
    """
    if media in IMAGES:
        return Decoded(_image(body, manifest))
    if media == NPY:
        return Decoded(_npy(body, manifest))
    if media == OCTETS:
        return _octets(body, header_length, manifest)
    check_amount(body, manifest)
    members = parse_json(body)
    if image_b64 and isinstance(members, dict) and "image_b64" in members:
        return with_wishes(_image_b64(members["image_b64"], manifest), members, manifest)
    return decode_v2(members, manifest)


def _octets(body: bytes, header_length: Optional[str], manifest: Manifest) -> Decoded:
    if header_length is None:
        raise Problem(
            "malformed-request",
            "octet-stream needs 'Inference-Header-Content-Length': 0 for one raw tensor, else the JSON's bytes",
        )
    found = _LENGTH.fullmatch(header_length.strip(" \t"))
    if found is None:
        raise Problem("malformed-request", "'Inference-Header-Content-Length' is not a number of bytes")
    length = int(found.group())
    if length:
        return decode_v2_binary(memoryview(body), length, manifest)
    spec = _single_input(manifest)
    shape = (1, *spec.shape[1:])
    return Decoded({spec.name: binary_tensor(spec, spec.datatype, shape, memoryview(body))}, raw_reply=True)


def _single_input(manifest: Manifest) -> TensorSpec:
    if len(manifest.inputs) != 1:
        raise Problem("unsupported-media", "this model has several inputs: send them as V2 JSON or V2 binary")
    return manifest.inputs[0]


def _image(body: bytes, manifest: Manifest) -> Dict[str, NDArray[Any]]:
    spec = _single_input(manifest)
    if manifest.preprocess is None:
        raise Problem("unsupported-media", "this model does not say how an image becomes its input: send a tensor")
    return {spec.name: decode_image(body, manifest.preprocess)}


def _npy(body: bytes, manifest: Manifest) -> Dict[str, NDArray[Any]]:
    spec = _single_input(manifest)
    if body[:4] == _ZIP:
        raise Problem("unsupported-media", "an .npz archive is not taken: send its one array as .npy")
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file, max_header_size=MAX_NPY_HEADER_BYTES)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(file, max_header_size=MAX_NPY_HEADER_BYTES)
        else:
            raise Problem("malformed-request", f".npy format {version} is not taken: write 1.0 or 2.0")
    except Problem:
        raise
    except Exception as error:  # noqa: BLE001 - the header is a Python literal: its parser raises many kinds
        raise Problem("malformed-request", f"the body is no .npy file ({type(error).__name__})") from None
    given, fortran_order, dtype = header
    shape = tuple(int(size) for size in given)  # True is a size, too, to NumPy's reader
    check_tensor(spec, shape, manifest)
    if dtype != spec.dtype or dtype.hasobject or fortran_order:
        raise Problem("invalid-tensor", f"the array is {dtype}, '{spec.name}' wants {spec.dtype} in C order")
    data = memoryview(body)[file.tell() :]
    if len(data) != elements(shape) * dtype.itemsize:
        raise Problem("malformed-request", f"the array's {len(data)} bytes do not fill its shape {list(shape)}")
    return {spec.name: binary_tensor(spec, spec.datatype, shape, data)}


def _image_b64(text: Any, manifest: Manifest) -> Dict[str, NDArray[Any]]:
    if not isinstance(text, str):
        raise Problem("malformed-request", "'image_b64' is no string")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem("malformed-request", "'image_b64' is not base64") from None
    return _image(data, manifest)
