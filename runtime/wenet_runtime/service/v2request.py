"""Open Inference Protocol V2's inference object → tensors, parameters, and which outputs are wanted in which form."""

from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from numpy.typing import NDArray

from wenet_runtime.bundle import Manifest, TensorSpec
from wenet_runtime.service.images import decode_images
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.v2binary import HALVES, MAX_HEADER_BYTES, Tail, binary_tensor, split_bytes
from wenet_runtime.service.v2json import json_tensor, parse_json

BYTES = "BYTES"


@dataclass(frozen=True)
class Decoded:
    """A request's content: inputs by name, and what its JSON asked for beside them.

    Attributes:
        inputs: (batch, …) each.
        parameters: of the request.
        request_id: `id`, to be echoed.
        outputs: names of those that are wanted; None for all.
        raw_reply: the body was numbers alone, so the reply is binary unless `Accept` says otherwise.
        binary_output: whether outputs are wanted as bytes; None where the request does not say.
        binary: the same for single outputs, by name.
    """

    inputs: Dict[str, NDArray[Any]]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    request_id: Optional[str] = None
    outputs: Optional[Tuple[str, ...]] = None
    raw_reply: bool = False
    binary_output: Optional[bool] = None
    binary: Mapping[str, bool] = field(default_factory=dict)

    @property
    def bare(self) -> bool:
        """Whether the body held inputs alone, and nothing that the reply depends on."""
        said = self.outputs is not None or self.binary_output is not None or self.binary
        return self.request_id is None and not said


def decode_v2_binary(body: memoryview, length: int, manifest: Manifest) -> Decoded:
    """A V2 request whose first `length` bytes are JSON. Raises `Problem` as `decode_v2`, or too-large."""
    if length > len(body):
        raise Problem(
            "malformed-request",
            f"'Inference-Header-Content-Length' is more than the body's {len(body)} bytes",
        )
    if length > MAX_HEADER_BYTES:
        raise Problem(
            "too-large", f"the JSON before the tensors has {length} bytes, at most {MAX_HEADER_BYTES} are taken"
        )
    tail = Tail(body[length:])
    decoded = decode_v2(parse_json(bytes(body[:length])), manifest, tail)
    tail.check_empty()
    return decoded


def decode_v2(members: Any, manifest: Manifest, tail: Optional[Tail] = None) -> Decoded:
    """A parsed V2 inference object as tensors.

    Args:
        members: what the JSON says.
        manifest: the model's inputs and outputs, its preprocessing and largest batch.
        tail: bytes behind the JSON; None where there is only JSON.

    Raises:
        Problem: malformed-request, invalid-tensor; too-large or unsupported-media for images.
    """
    if not isinstance(members, dict):
        raise Problem("malformed-request", 'the JSON body is no object: send {"inputs": […]}')
    inputs = members.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise Problem("malformed-request", "the JSON body has no list 'inputs': send {\"inputs\": […]}")
    specs = {spec.name: spec for spec in manifest.inputs}
    tensors: Dict[str, NDArray[Any]] = {}
    for one in inputs:
        name = _name(one, specs)
        if name in tensors:
            raise Problem("invalid-tensor", f"input '{name}' is given twice")
        tensors[name] = _tensor(one, specs[name], manifest, tail)
    missing = sorted(set(specs) - set(tensors))
    if missing:
        raise Problem("invalid-tensor", f"input '{missing[0]}' is missing: this model has {', '.join(specs)}")
    if len({values.shape[0] for values in tensors.values()}) != 1:
        raise Problem("invalid-tensor", "the inputs' batches differ")
    return with_wishes(tensors, members, manifest)


def with_wishes(tensors: Dict[str, NDArray[Any]], members: Mapping[str, Any], manifest: Manifest) -> Decoded:
    """Inputs with what any JSON body may say beside them. Raises `Problem` malformed-request or invalid-tensor."""
    parameters = members.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Problem("malformed-request", "'parameters' is no object")
    request_id = members.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise Problem("malformed-request", "'id' is no string")
    asked, binary = _asked_outputs(members.get("outputs"), manifest)
    binary_output = _flag(parameters, "binary_data_output")
    return Decoded(tensors, parameters, request_id, asked, binary_output=binary_output, binary=binary)


def _name(one: Any, specs: Mapping[str, TensorSpec]) -> str:
    if not isinstance(one, dict) or not isinstance(one.get("name"), str):
        raise Problem("malformed-request", "an input has no 'name'")
    name: str = one["name"]
    if name not in specs:
        raise Problem("invalid-tensor", f"unknown input '{name[:60]}': this model has {', '.join(specs)}")
    return name


def _tensor(one: Mapping[str, Any], spec: TensorSpec, manifest: Manifest, tail: Optional[Tail]) -> NDArray[Any]:
    name, datatype, given = spec.name, one.get("datatype"), one.get("shape")
    parameters = one.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Problem("malformed-request", f"'parameters' of '{name}' is no object")
    in_binary = "binary_data_size" in parameters
    if in_binary and "data" in one:
        raise Problem("malformed-request", f"'{name}' has both 'data' and 'binary_data_size': send one of them")
    if in_binary and tail is None:
        raise Problem("malformed-request", f"'{name}' has a 'binary_data_size' and the request no binary part")
    _check_datatype(spec, datatype, in_binary)
    if not isinstance(given, list) or not all(isinstance(size, int) and not isinstance(size, bool) for size in given):
        raise Problem("malformed-request", f"'{name}' has no 'shape' of whole numbers")
    shape = tuple(given)
    if datatype == BYTES:
        return _encoded_images(one, shape, manifest, tail)
    check_tensor(spec, shape, manifest)
    if tail is None or not in_binary:
        return json_tensor(spec, shape, one.get("data"))
    return binary_tensor(spec, str(datatype), shape, tail.take(name, parameters["binary_data_size"]))


def _check_datatype(spec: TensorSpec, datatype: Any, in_binary: bool) -> None:
    if datatype == spec.datatype:
        return
    widened = datatype in HALVES and spec.datatype == "FP32"
    if (widened or datatype == BYTES) and in_binary:
        return
    if widened or datatype == BYTES:
        raise Problem("invalid-tensor", f"'{spec.name}' is {datatype}, which is taken in binary form only")
    raise Problem("invalid-tensor", f"'{spec.name}' has datatype {str(datatype)[:20]!r}, wanted {spec.datatype}")


def _encoded_images(
    one: Mapping[str, Any], shape: Tuple[int, ...], manifest: Manifest, tail: Optional[Tail]
) -> NDArray[Any]:
    name = one["name"]
    if len(manifest.inputs) != 1 or manifest.preprocess is None or tail is None:
        raise Problem("invalid-tensor", f"'{name}' does not take images: send {manifest.inputs[0].datatype} numbers")
    if len(shape) != 1 or not 1 <= shape[0] <= manifest.max_batch:
        raise Problem(
            "invalid-tensor", f"'{name}' takes BYTES of shape [N], N at least 1, at most {manifest.max_batch}"
        )
    data = tail.take(name, one["parameters"]["binary_data_size"])
    return decode_images(split_bytes(name, data, shape[0]), manifest.preprocess)


def _asked_outputs(outputs: Any, manifest: Manifest) -> Tuple[Optional[Tuple[str, ...]], Dict[str, bool]]:
    """Which outputs are wanted, None for all, and those that say themselves whether as bytes."""
    if outputs is None:
        return None, {}
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise Problem("malformed-request", "'outputs' is no list of objects")
    known = [spec.name for spec in manifest.outputs]
    names = [one.get("name") for one in outputs]
    binary: Dict[str, bool] = {}
    for name, one in zip(names, outputs):
        if name not in known:
            raise Problem("invalid-tensor", f"unknown output '{str(name)[:60]}': this model has {', '.join(known)}")
        parameters = one.get("parameters", {})
        if not isinstance(parameters, dict):
            raise Problem("malformed-request", f"'parameters' of output '{name}' is no object")
        wanted = _flag(parameters, "binary_data")
        if wanted is not None:
            binary[name] = wanted
    if len(set(names)) != len(names):
        raise Problem("invalid-tensor", "an output is asked for twice")
    return tuple(names) or None, binary


def _flag(parameters: Mapping[str, Any], name: str) -> Optional[bool]:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise Problem("malformed-request", f"parameter '{name}' is neither true nor false")
    return value


def check_tensor(spec: TensorSpec, shape: Tuple[int, ...], manifest: Manifest) -> None:
    """Whether a tensor of this shape fits the input. Raises `Problem` invalid-tensor."""
    wanted = ["batch", *spec.shape[1:]]
    if len(shape) != len(spec.shape) or tuple(shape[1:]) != spec.shape[1:]:
        raise Problem("invalid-tensor", f"'{spec.name}' has shape {_shown(shape)}, wanted {wanted}")
    if not 1 <= shape[0] <= manifest.max_batch:
        raise Problem(
            "invalid-tensor",
            f"the batch of '{spec.name}' is {_shown(shape[:1])[1:-1]}, at least 1, at most {manifest.max_batch}",
        )


def _shown(shape: Tuple[int, ...]) -> str:
    """A client's shape for an error message, whatever it holds."""
    return "[" + ", ".join(str(size) if abs(size) < 1 << 63 else "…" for size in shape[:8]) + "]"
