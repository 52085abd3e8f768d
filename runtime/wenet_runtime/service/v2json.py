"""JSON of requests: parsed strictly, bounded in depth and in how many numbers it may hold."""

import json
from typing import Any, List, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Manifest, TensorSpec
from wenet_runtime.service.problems import Problem

MAX_JSON_DEPTH = 32
SPARE_COMMAS = 1024  # of everything in a JSON body that is no tensor's data
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


def parse_json(body: bytes) -> Any:
    """Parse JSON of bounded depth, without NaN or Infinity. Raises `Problem` malformed-request."""
    if _depth(body) > MAX_JSON_DEPTH:
        raise Problem("malformed-request", f"the JSON body is nested deeper than {MAX_JSON_DEPTH}")
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise Problem("malformed-request", f"the body is no JSON ({reason})") from None


def check_amount(body: bytes, manifest: Manifest) -> None:
    """Whether a JSON body can fit the model: parsed, its numbers would take many times its bytes.

    Raises:
        Problem: invalid-tensor.
    """
    most = manifest.max_batch * sum(elements(spec.shape[1:]) for spec in manifest.inputs)
    if body.count(b",") > most + SPARE_COMMAS:
        raise Problem("invalid-tensor", f"the body holds more numbers than this model's inputs at most take, {most}")


def elements(shape: Tuple[int, ...]) -> int:
    """How many numbers a tensor has; of Python's own whole numbers, so that no product overflows."""
    count = 1
    for size in shape:
        count *= size
    return count


def _depth(body: bytes) -> int:
    """How deep a JSON text's brackets nest, in time linear in its length whatever it holds."""
    if body.count(b"[") + body.count(b"{") <= MAX_JSON_DEPTH:
        return 0  # at most that, and strings need no looking at
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(unescaped.split(b'"')[::2])
    brackets = np.frombuffer(outside.translate(None, _NOT_BRACKETS), np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0))


def _no_constant(name: str) -> Any:
    raise Problem("malformed-request", f"the JSON body holds {name}: numbers must be finite")


def json_tensor(spec: TensorSpec, shape: Tuple[int, ...], data: Any) -> NDArray[Any]:
    """A V2 input's `data`, flat or nested, as the tensor it describes.

    Args:
        spec: the model's input.
        shape: that of the request, already checked against the input.
        data: what the JSON holds.

    Raises:
        Problem: malformed-request or invalid-tensor.
    """
    name = spec.name
    if not isinstance(data, list):
        raise Problem("malformed-request", f"'{name}' has no list 'data'")
    if not _numbers_only(data):
        raise Problem("invalid-tensor", f"'{name}' holds something else than {spec.datatype} numbers")
    try:
        found = np.asarray(data)
        kinds = "iuf" if spec.dtype.kind == "f" else "iu"
        if found.dtype.kind not in kinds:
            raise Problem("invalid-tensor", f"'{name}' holds something else than {spec.datatype} numbers")
        with np.errstate(over="ignore"):
            values = found.astype(spec.dtype)
    except (ValueError, OverflowError):
        raise Problem("invalid-tensor", f"the data of '{name}' is ragged or no list of numbers") from None
    if values.dtype.kind in "iu" and not np.array_equal(values, found):
        raise Problem("invalid-tensor", f"a number of '{name}' does not fit {spec.datatype}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Problem("invalid-tensor", f"a number of '{name}' is too large for {spec.datatype}")
    if found.size != elements(shape):
        raise Problem(
            "invalid-tensor", f"'{name}' has {found.size} numbers, its shape {list(shape)} wants another count"
        )
    return values.reshape(shape)


def _numbers_only(data: List[Any]) -> bool:
    """Whether nested lists hold numbers alone: NumPy would make room for the longest string in every place."""
    waiting: List[List[Any]] = [data]
    while waiting:
        one = waiting.pop()
        kinds = set(map(type, one))
        if not kinds <= {int, float, list}:
            return False
        if list in kinds:
            waiting.extend(inner for inner in one if isinstance(inner, list))
    return True
