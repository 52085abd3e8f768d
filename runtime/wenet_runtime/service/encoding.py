"""Numbers and tensors as JSON, .npy and little-endian bytes."""

import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response


def json_bytes(members: Any) -> bytes:
    """Compact JSON; NaN and infinities are refused by the encoder, so callers replace them first.

    Half a surrogate pair, which a client may send escaped and get echoed, goes back escaped.
    """
    return _ENCODER.encode(members).encode("utf-8", "backslashreplace")


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def flat_list(values: NDArray[Any]) -> "list[Any]":
    """A tensor as a flat list, row-major; non-finite numbers become null."""
    flat = values.reshape(-1)
    if values.dtype.kind == "f" and not np.isfinite(flat).all():
        return [number if np.isfinite(number) else None for number in flat.tolist()]
    return list(flat.tolist())


def npy_bytes(values: NDArray[Any]) -> bytes:
    """A tensor as a .npy file, format 1.0."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def raw_bytes(values: NDArray[Any]) -> bytes:
    """A tensor's numbers, little-endian, row-major."""
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()


def json_response(members: Any) -> Response:
    """A 200 of JSON."""
    return Response(json_bytes(members), media_type="application/json")
