"""What the cache says of its modes: read from a file that may be anybody's or damaged, so nothing is believed."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Collection, Mapping, Tuple

import numpy as np

from wenet_runtime.blob import ALIGNMENT

INDEX_VERSION = 1
MAX_DIMENSIONS = 16
DTYPES = frozenset(
    ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")
)


@dataclass(frozen=True)
class Number:
    """One array of a mode: where it lies in the blob."""

    dtype: str
    shape: Tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Its size in the blob."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class ModeEntry:
    """One mode: its model's file and its numbers by name."""

    sha256: str
    size: int
    numbers: Mapping[str, Number]


@dataclass(frozen=True)
class ModeIndex:
    """All modes of one bundle on one device.

    Attributes:
        identity: what they were built from and for; they are of no use to anything else.
        blob_sha256, blob_size: the file of numbers.
    """

    version: int
    identity: Mapping[str, str]
    blob_sha256: str
    blob_size: int
    modes: Mapping[str, ModeEntry]


@lru_cache(maxsize=1)
def _adapter() -> Any:
    from pydantic import TypeAdapter  # imported late to keep `--help` fast

    return TypeAdapter(ModeIndex)


def encode_index(index: ModeIndex) -> bytes:
    """The index as JSON."""
    data: bytes = _adapter().dump_json(index, indent=1)
    return data


def decode_index(data: bytes, *, identity: Mapping[str, str], modes: Collection[str]) -> ModeIndex:
    """Read an index, which must be of this identity and these modes.

    Raises:
        ValueError: it is not, or it is no index, or a number would lie outside the blob; says which.
    """
    from pydantic import ValidationError

    try:
        index: ModeIndex = _adapter().validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"its index is no index ({at or 'JSON'}: {first['msg']})") from None
    if index.version != INDEX_VERSION:
        raise ValueError(f"its index is of version {index.version}, this runtime reads {INDEX_VERSION}")
    differing = [name for name in {**identity, **index.identity} if identity.get(name) != index.identity.get(name)]
    if differing:
        name = differing[0]
        found, wanted = (str(one.get(name))[:40] for one in (index.identity, identity))
        raise ValueError(f"it is for another {name} ('{found}', this is '{wanted}')")
    if set(index.modes) != set(modes):
        raise ValueError(f"it holds the modes {sorted(index.modes)}, the bundle has {sorted(modes)}")
    for mode_id, entry in index.modes.items():
        for name, number in entry.numbers.items():
            _check(number, index.blob_size, f"'{name}' of mode '{mode_id}'")
    return index


def _check(number: Number, blob_size: int, what: str) -> None:
    if number.dtype not in DTYPES:
        raise ValueError(f"{what} is of dtype '{number.dtype[:20]}'")
    possible = len(number.shape) <= MAX_DIMENSIONS and all(0 <= size <= blob_size for size in number.shape)
    if not possible or number.offset < 0 or number.offset % ALIGNMENT:
        raise ValueError(f"{what} has an impossible shape or place")
    if number.offset + number.nbytes > blob_size:
        raise ValueError(f"{what} ends at {number.offset + number.nbytes} of {blob_size} bytes")
