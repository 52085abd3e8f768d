"""JSON request bodies: Open Inference Protocol V2 objects, parsed strictly and bounded in depth."""

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.bundle import Manifest, TensorSpec
from wenet_runtime.service.problems import Problem

MAX_JSON_DEPTH = 32
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


@dataclass(frozen=True)
class Decoded:
    """A request's content: inputs by name, and what its JSON asked for beside them."""

    inputs: Dict[str, NDArray[Any]]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    request_id: Optional[str] = None
    outputs: Optional[Tuple[str, ...]] = None
    raw_reply: bool = False


def decode_v2(members: Any, manifest: Manifest) -> Decoded:
    """A parsed V2 inference object as tensors. Raises `Problem` malformed-request or invalid-tensor."""
    if not isinstance(members, dict):
        raise Problem("malformed-request", 'the JSON body is no object: send {"inputs": […]} or {"image_b64": "…"}')
    inputs = members.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise Problem("malformed-request", "the JSON body has no list 'inputs': send {\"inputs\": […]}")
    parameters, request_id = decode_common(members)
    specs = {spec.name: spec for spec in manifest.inputs}
    tensors: Dict[str, NDArray[Any]] = {}
    for one in inputs:
        name, values = _json_tensor(one, specs, manifest)
        if name in tensors:
            raise Problem("invalid-tensor", f"input '{name}' is given twice")
        tensors[name] = values
    missing = sorted(set(specs) - set(tensors))
    if missing:
        raise Problem("invalid-tensor", f"input '{missing[0]}' is missing: this model has {', '.join(specs)}")
    if len({values.shape[0] for values in tensors.values()}) != 1:
        raise Problem("invalid-tensor", "the inputs' batches differ")
    return Decoded(tensors, parameters, request_id, _asked_outputs(members.get("outputs"), manifest))


def decode_common(members: Mapping[str, Any]) -> Tuple[Mapping[str, Any], Optional[str]]:
    """`parameters` and `id` of any JSON body. Raises `Problem` malformed-request."""
    parameters = members.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Problem("malformed-request", "'parameters' is no object")
    request_id = members.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise Problem("malformed-request", "'id' is no string")
    return parameters, request_id


def parse_json(body: bytes) -> Any:
    """Parse JSON of bounded depth, without NaN or Infinity. Raises `Problem` malformed-request."""
    if _depth(body) > MAX_JSON_DEPTH:
        raise Problem("malformed-request", f"the JSON body is nested deeper than {MAX_JSON_DEPTH}")
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise Problem("malformed-request", f"the body is no JSON ({reason})") from None


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


def _json_tensor(one: Any, specs: Mapping[str, TensorSpec], manifest: Manifest) -> Tuple[str, NDArray[Any]]:
    if not isinstance(one, dict) or not isinstance(one.get("name"), str):
        raise Problem("malformed-request", "an input has no 'name'")
    name = one["name"]
    if name not in specs:
        raise Problem("invalid-tensor", f"unknown input '{name[:60]}': this model has {', '.join(specs)}")
    spec = specs[name]
    if one.get("datatype") != spec.datatype:
        raise Problem(
            "invalid-tensor", f"'{name}' has datatype {str(one.get('datatype'))[:20]!r}, wanted {spec.datatype}"
        )
    shape = one.get("shape")
    if not isinstance(shape, list) or not all(isinstance(size, int) and not isinstance(size, bool) for size in shape):
        raise Problem("malformed-request", f"'{name}' has no 'shape' of whole numbers")
    check_tensor(spec, tuple(shape), manifest)
    data = one.get("data")
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
    if found.size != int(np.prod(shape, dtype=object)):
        raise Problem("invalid-tensor", f"'{name}' has {found.size} numbers, its shape {shape} wants another count")
    return name, values.reshape(shape)


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


def _asked_outputs(outputs: Any, manifest: Manifest) -> Optional[Tuple[str, ...]]:
    if outputs is None:
        return None
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise Problem("malformed-request", "'outputs' is no list of objects")
    known = [spec.name for spec in manifest.outputs]
    names = [one.get("name") for one in outputs]
    for name in names:
        if name not in known:
            raise Problem("invalid-tensor", f"unknown output '{str(name)[:60]}': this model has {', '.join(known)}")
    if len(set(names)) != len(names):
        raise Problem("invalid-tensor", "an output is asked for twice")
    return tuple(names) or None


def check_tensor(spec: TensorSpec, shape: Tuple[int, ...], manifest: Manifest) -> None:
    """Whether a tensor of this shape fits the input. Raises `Problem` invalid-tensor."""
    wanted = ["batch", *spec.shape[1:]]
    if len(shape) != len(spec.shape) or tuple(shape[1:]) != spec.shape[1:]:
        raise Problem("invalid-tensor", f"'{spec.name}' has shape {list(shape)[:8]}, wanted {wanted}")
    if not 1 <= shape[0] <= manifest.max_batch:
        raise Problem(
            "invalid-tensor", f"the batch of '{spec.name}' is {shape[0]}, at least 1, at most {manifest.max_batch}"
        )
