"""Reads safetensors files without copying them: an array is the mapped file itself, read-only.

What the file says of itself is checked before it is believed. A file that is cut short while it is mapped
ends the process at the next touch, so only files that nobody writes to are read this way.
"""

import json
import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, NoReturn, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.errors import BundleError

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # what the format allows
METADATA = "__metadata__"

DTYPES: Mapping[str, type] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def map_tensors(path: Path) -> Dict[str, NDArray[Any]]:
    """The tensors of a safetensors file by name. Raises `BundleError` naming the file and what is wrong with it."""
    try:
        mapped = np.memmap(str(path), np.uint8, mode="r").view(np.ndarray)
        header = _header(mapped)
        numbers = mapped[LENGTH_BYTES + _length(mapped) :]
        return {name: _tensor(name, entry, numbers) for name, entry in header.items() if name != METADATA}
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise BundleError(f"{path.name} is no readable safetensors file ({error}): export it again") from None


def _length(mapped: NDArray[Any]) -> int:
    """Bytes of the header, which follows them and ends inside the file."""
    if mapped.size < LENGTH_BYTES:
        raise ValueError(f"{mapped.size} bytes, too short for a header")
    length = int.from_bytes(mapped[:LENGTH_BYTES].tobytes(), "little")
    if length > min(MAX_HEADER_BYTES, mapped.size - LENGTH_BYTES):
        raise ValueError(f"a header of {length} bytes in a file of {mapped.size}")
    return length


def _header(mapped: NDArray[Any]) -> Dict[str, Any]:
    text = mapped[LENGTH_BYTES : LENGTH_BYTES + _length(mapped)].tobytes().decode()
    header = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    return header


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("the header names something twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _tensor(name: str, entry: Any, numbers: NDArray[Any]) -> NDArray[Any]:
    """One tensor, whose bytes must lie inside the file and be as many as its shape says."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"'{name}' has not dtype, shape and data_offsets")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ValueError(f"'{name}' is of dtype {str(entry['dtype'])[:20]}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"'{name}' has an impossible shape or place")
    dtype, (start, end) = np.dtype(DTYPES[entry["dtype"]]), offsets
    if not start <= end <= numbers.size or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"'{name}' is of shape {shape[:8]} and lies at {start} to {end} of {numbers.size} bytes")
    return numbers[start:end].view(dtype).reshape(shape)


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
