"""What a request carries: files as they are, and random tensors by what a server says of its input."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping

import numpy as np

from wenet_runtime.errors import SettingsError

MAX_BODY_BYTES = 16 << 20  # the server takes no more

_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png", b"\x93NUMPY": "application/x-npy"}
_SUFFIXES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".npy": "application/x-npy",
    ".json": "application/json",
}
_OTHER_IMAGES = (".bmp", ".gif", ".heic", ".tif", ".tiff", ".webp", ".avif")
_RAW = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
_DTYPES = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip


@dataclass(frozen=True)
class Payload:
    """A body and the headers that say what it is."""

    name: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def file_payload(path: Path) -> Payload:
    """A file to be sent as what its first bytes say it is: JPEG, PNG, .npy; `.json` is a V2 request, all else raw.

    Raises:
        SettingsError: it cannot be read, is too large, or is not what its name says.
    """
    try:
        with path.open("rb") as file:
            body = file.read(MAX_BODY_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"'{path}' cannot be read ({error.strerror}): name an image, .npy or raw file") from None
    if not body:
        raise SettingsError(f"'{path}' is empty: name an image, .npy or raw file")
    if len(body) > MAX_BODY_BYTES:
        raise SettingsError(f"'{path}' is larger than {MAX_BODY_BYTES} bytes, which is all that the server takes")
    found = next((media for magic, media in _MAGIC.items() if body.startswith(magic)), None)
    suffix = path.suffix.lower()
    named = _SUFFIXES.get(suffix)
    if named == "application/json":
        return Payload(str(path), body, {"Content-Type": named})
    if suffix in _OTHER_IMAGES or (named is not None and found is None):
        raise SettingsError(f"'{path}' is no JPEG, PNG or .npy file inside: convert it first")
    return Payload(str(path), body, _RAW if found is None else {"Content-Type": found})


def random_payload(metadata: Mapping[str, Any], seed: int) -> Payload:
    """One row of random numbers for a model of one input.

    Args:
        metadata: the body of GET /v2/models/{m}.
        seed: of the draw.

    Raises:
        SettingsError: the model has several inputs, or one that numbers do not fill.
    """
    inputs = metadata.get("inputs")
    try:
        (one,) = inputs  # type: ignore[misc]
        dtype = np.dtype(_DTYPES[one["datatype"]])
        shape = [1, *(int(size) for size in one["shape"][1:])]
        if min(shape) < 1 or int(np.prod(shape, dtype=object)) * dtype.itemsize > MAX_BODY_BYTES:
            raise ValueError
    except (TypeError, ValueError, KeyError, AttributeError):
        raise SettingsError(
            "the server's model does not take one tensor of a fixed size: name a file to be sent"
        ) from None
    draw = np.random.default_rng(seed)
    values = draw.standard_normal(shape) if dtype.kind == "f" else draw.integers(0, 100, shape)
    return Payload("random numbers", values.astype(dtype).tobytes(), _RAW)


def option_headers(options: Mapping[str, Any]) -> Dict[str, str]:
    """Request options (HTTP API v1, section 2) as headers, e.g. budget_ms → WeNet-Budget-Ms; None is left out."""
    return {
        "WeNet-" + "-".join(part.capitalize() for part in name.split("_")): _text(value)
        for name, value in options.items()
        if value is not None
    }


def _text(value: Any) -> str:
    """A number as the server takes it: no exponent."""
    return np.format_float_positional(value, trim="-") if isinstance(value, float) else str(value)
