"""Open Inference Protocol's binary tensors: little-endian, row-major, in the order of the JSON before them."""

import struct
from typing import Any, List, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import TensorSpec
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.v2json import elements

MAX_HEADER_BYTES = 64 << 10
# Datatypes of half the width that an FP32 input also takes in binary form: widening them is exact.
HALVES = ("FP16", "BF16")


class Tail:
    """The bytes behind the JSON of a request, handed out without being copied.

    Args:
        data: all of them.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._taken = 0

    def take(self, name: str, size: Any) -> memoryview:
        """The next bytes, `size` of them as the JSON says. Raises `Problem` malformed-request."""
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise Problem("malformed-request", f"'binary_data_size' of '{name}' is no number of bytes")
        left = len(self._data) - self._taken
        if size > left:
            raise Problem("malformed-request", f"'{name}' wants {_shown(size)} bytes, the body has {left} more")
        self._taken += size
        return self._data[self._taken - size : self._taken]

    def check_empty(self) -> None:
        """Whether everything was handed out. Raises `Problem` malformed-request."""
        left = len(self._data) - self._taken
        if left:
            raise Problem("malformed-request", f"{left} bytes follow the last tensor: the sizes must add up exactly")


def _shown(size: int) -> str:
    return str(size) if size < 1 << 63 else "more than 2^63"


def binary_tensor(spec: TensorSpec, datatype: str, shape: Tuple[int, ...], data: memoryview) -> NDArray[Any]:
    """A tensor whose numbers are given as bytes.

    Args:
        spec: the model's input.
        datatype: that of the bytes: the input's own, or one of `HALVES` where the input is FP32.
        shape: already checked against the input.
        data: the numbers.

    Returns:
        A view of `data` where that is possible, of the input's type.

    Raises:
        Problem: malformed-request for another number of bytes.
    """
    width = 2 if datatype in HALVES else spec.dtype.itemsize
    wanted = elements(shape) * width
    if len(data) != wanted:
        raise Problem(
            "malformed-request",
            f"'{spec.name}' has {len(data)} bytes, {datatype} of shape {list(shape)} has {wanted}",
        )
    if datatype == "FP16":
        return np.frombuffer(data, "<f2").astype(spec.dtype).reshape(shape)
    if datatype == "BF16":  # the upper half of an FP32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    values: NDArray[Any] = np.frombuffer(data, spec.dtype.newbyteorder("<")).reshape(shape)
    # The JSON before it may end anywhere; engines take addresses, and not every processor takes odd ones.
    return values if values.flags.aligned else values.copy()


def split_bytes(name: str, data: memoryview, count: int) -> List[memoryview]:
    """The elements of a BYTES tensor, each behind its length. Raises `Problem` malformed-request."""
    found = []
    at = 0
    for number in range(count):
        if len(data) - at < 4:
            raise Problem("malformed-request", f"'{name}' ends before element {number}")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if length > len(data) - at:
            raise Problem(
                "malformed-request", f"element {number} of '{name}' has {length} bytes, {len(data) - at} are left"
            )
        found.append(data[at : at + length])
        at += length
    if at != len(data):
        raise Problem("malformed-request", f"{len(data) - at} bytes follow the last element of '{name}'")
    return found
