"""Request bodies → input tensors, in every format of HTTP API v1 section 4 that this version takes."""

import base64
import binascii
import io
import re
from typing import Any, Dict, List, Optional

import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request

from wenet_runtime.bundle import Manifest, TensorSpec
from wenet_runtime.service.images import decode_image
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.v2json import Decoded, check_tensor, decode_common, decode_v2, parse_json

MAX_BODY_BYTES = 16 << 20
MAX_NPY_HEADER_BYTES = 10 << 10

_LENGTH = re.compile(r"[0-9]{1,20}")

JSON = "application/json"
OCTETS = "application/octet-stream"
NPY = "application/x-npy"
IMAGES = ("image/jpeg", "image/png")


async def read_body(request: Request) -> bytes:
    """The whole body, counted while it streams in. Raises `Problem` too-large without taking the rest."""
    declared = request.headers.get("content-length")
    if declared is not None and not _LENGTH.fullmatch(declared):
        raise Problem("malformed-request", "Content-Length is not a number of bytes")
    if declared is not None and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    pieces: List[bytes] = []
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise _too_large()
            pieces.append(piece)
    except ClientDisconnect:
        raise Problem("malformed-request", "the connection ended before the body did") from None
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


def decode(media: str, body: bytes, header_length: Optional[str], manifest: Manifest) -> Decoded:
    """Decode a body.

    Args:
        media: what `media_type` returned.
        body: all of it.
        header_length: the `Inference-Header-Content-Length` header.
        manifest: the model's inputs, preprocessing and largest batch.

    Raises:
        Problem: malformed-request, invalid-tensor, too-large or unsupported-media.
    """
    if media in IMAGES:
        return Decoded(_image(body, manifest))
    if media == NPY:
        return Decoded(_npy(body, manifest))
    if media == OCTETS:
        if header_length is None:
            raise Problem(
                "malformed-request",
                "octet-stream needs 'Inference-Header-Content-Length': 0 for one raw tensor, else the JSON's bytes",
            )
        if not _LENGTH.fullmatch(header_length.strip()):
            raise Problem("malformed-request", "'Inference-Header-Content-Length' is not a number of bytes")
        if int(header_length) == 0:
            return Decoded(_raw(body, manifest), raw_reply=True)
        raise Problem(
            "unsupported-media",
            "V2 requests with binary tensors are not served by this version: send JSON, .npy or one raw tensor",
        )
    members = parse_json(body)
    if isinstance(members, dict) and "image_b64" in members:
        parameters, request_id = decode_common(members)
        return Decoded(_image_b64(members["image_b64"], manifest), parameters, request_id)
    return decode_v2(members, manifest)


def _single_input(manifest: Manifest) -> TensorSpec:
    if len(manifest.inputs) != 1:
        raise Problem("unsupported-media", "this model has several inputs: send them as JSON")
    return manifest.inputs[0]


def _image(body: bytes, manifest: Manifest) -> Dict[str, NDArray[Any]]:
    spec = _single_input(manifest)
    if manifest.preprocess is None:
        raise Problem("unsupported-media", "this model does not say how an image becomes its input: send a tensor")
    return {spec.name: decode_image(body, manifest.preprocess)}


def _raw(body: bytes, manifest: Manifest) -> Dict[str, NDArray[Any]]:
    spec = _single_input(manifest)
    shape = (1, *spec.shape[1:])
    wanted = int(np.prod(shape)) * spec.dtype.itemsize
    if len(body) != wanted:
        raise Problem(
            "malformed-request",
            f"the body has {len(body)} bytes, one {spec.datatype} tensor of shape {list(shape)} has {wanted}",
        )
    return {spec.name: np.frombuffer(body, spec.dtype.newbyteorder("<")).reshape(shape)}


def _npy(body: bytes, manifest: Manifest) -> Dict[str, NDArray[Any]]:
    spec = _single_input(manifest)
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
    shape, fortran_order, dtype = header
    check_tensor(spec, shape, manifest)
    if dtype != spec.dtype or dtype.hasobject or fortran_order:
        raise Problem("invalid-tensor", f"the array is {dtype}, '{spec.name}' wants {spec.dtype} in C order")
    data = body[file.tell() :]
    if len(data) != int(np.prod(shape)) * dtype.itemsize:
        raise Problem("malformed-request", f"the array's {len(data)} bytes do not fill its shape {list(shape)}")
    return {spec.name: np.frombuffer(data, dtype).reshape(shape)}


def _image_b64(text: Any, manifest: Manifest) -> Dict[str, NDArray[Any]]:
    if not isinstance(text, str):
        raise Problem("malformed-request", "'image_b64' is no string")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem("malformed-request", "'image_b64' is not base64") from None
    return _image(data, manifest)
