"""Results → response bodies and headers, as HTTP API v1 sections 5 and 6 say."""

import re
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from wenet_runtime.bundle import Manifest
from wenet_runtime.result import Result
from wenet_runtime.service.bodies import JSON, NPY, OCTETS
from wenet_runtime.service.encoding import flat_list, json_bytes, npy_bytes, raw_bytes
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.v2request import Decoded

MAX_TOP_K = 100
ANY = ("*/*", "application/*")
_QUALITY = re.compile(r"q\s*=\s*(\d(?:\.\d{0,3})?)")
Fields = List[Tuple[bytes, bytes]]  # headers, names in lower case


@dataclass(frozen=True)
class Wanted:
    """The form of the reply.

    Attributes:
        media: its media type.
        outputs: names, in the order of the reply.
        binary: those that are sent as bytes behind the JSON.
        top_k: how many best labels; 0 for none.
        request_id: to be echoed.
    """

    media: str
    outputs: Tuple[str, ...]
    binary: FrozenSet[str]
    top_k: int
    request_id: Optional[str]


def wanted_reply(request: Request, manifest: Manifest, decoded: Decoded) -> Wanted:
    """The form that V2's parameters, `Accept` and `top_k` ask for. Raises `Problem` malformed-request."""
    names = decoded.outputs or tuple(spec.name for spec in manifest.outputs)
    accept = [value.decode("latin-1") for name, value in request.scope["headers"] if name == b"accept"]
    media = _accepted(", ".join(accept), OCTETS if decoded.raw_reply else JSON, len(names))
    request_id = decoded.request_id
    said = decoded.binary_output
    if said is not None or decoded.binary:  # these decide before Accept
        otherwise = media == OCTETS if said is None else said
        binary = frozenset(name for name in names if decoded.binary.get(name, otherwise))
        media = OCTETS if binary else JSON
    else:
        binary = frozenset(names) if media == OCTETS else frozenset()
    text = request.query_params.get("top_k")
    if text is None:
        return Wanted(media, names, binary, 0, request_id)
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_TOP_K:
        raise Problem("malformed-request", f"top_k is '{text[:20]}': give 1 to {MAX_TOP_K}")
    if media == NPY:
        raise Problem("malformed-request", "top_k needs JSON: an .npy reply has no place for it")
    return Wanted(media, names, binary, int(text), request_id)


def _accepted(accept: str, otherwise: str, outputs: int) -> str:
    """The best media type of `Accept`, the first of equals, that a reply of so many outputs can have.

    JSON where none of them can be had, and `otherwise` where all are welcome.
    """
    best, most = (JSON if accept else otherwise), 0.0
    for one in accept.split(","):
        asked, *parameters = one.lower().split(";")
        asked = asked.strip()
        if asked in ANY:
            asked = otherwise
        if asked in (JSON, OCTETS) or (asked == NPY and outputs == 1):
            weight = _weight(parameters)
            if weight > most:
                best, most = asked, weight
    return best


def _weight(parameters: Sequence[str]) -> float:
    """A media range's `q`; 1 where it has none, or none that is a number from 0 to 1."""
    for one in parameters:
        found = _QUALITY.fullmatch(one.strip())
        if found:
            return min(1.0, float(found.group(1)))
    return 1.0


def encode(result: Result, wanted: Wanted, manifest: Manifest, parameters: Mapping[str, Any]) -> Tuple[bytes, Fields]:
    """A result's body and the headers that describe it."""
    if wanted.media == NPY:
        return npy_bytes(result.outputs[wanted.outputs[0]]), [(b"content-type", NPY.encode())]
    members: Dict[str, Any] = {"model_name": manifest.model, "model_version": result.mode_id}
    if wanted.request_id is not None:
        members["id"] = wanted.request_id
    members["parameters"] = parameters
    if wanted.top_k:
        members["top_k"] = top_k(result.outputs[wanted.outputs[0]], manifest.labels, wanted.top_k)
    datatypes = {spec.name: spec.datatype for spec in manifest.outputs}
    tensors = []
    binary: List[bytes] = []
    for name in wanted.outputs:
        values = result.outputs[name]
        tensor: Dict[str, Any] = {"name": name, "datatype": datatypes[name], "shape": list(values.shape)}
        if name in wanted.binary:
            binary.append(raw_bytes(values))
            tensor["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            tensor["data"] = flat_list(values)
        tensors.append(tensor)
    members["outputs"] = tensors
    head = json_bytes(members)
    if wanted.media == OCTETS:
        length = (b"inference-header-content-length", b"%d" % len(head))
        return b"".join([head, *binary]), [(b"content-type", OCTETS.encode()), length]
    return head, [(b"content-type", JSON.encode())]


def top_k(scores: NDArray[Any], labels: Tuple[str, ...], count: int) -> List[List[Dict[str, Any]]]:
    """The best labels of each row, best first; scores as softmax probabilities. `scores` is (batch, classes)."""
    rows = scores.reshape(scores.shape[0], -1).astype(np.float64)
    with np.errstate(invalid="ignore"):  # what is no number gets no score
        shifted = np.exp(rows - rows.max(axis=1, keepdims=True))
        shares = shifted / shifted.sum(axis=1, keepdims=True)
    best = np.argsort(-shares, axis=1, kind="stable")[:, :count]
    return [
        [
            {
                "index": int(index),
                "label": labels[index] if index < len(labels) else str(index),
                "score": round(float(shares[row, index]), 6) if np.isfinite(shares[row, index]) else None,
            }
            for index in best[row]
        ]
        for row in range(rows.shape[0])
    ]


def result_parameters(result: Result, *, latency_ms: float, met: Optional[bool]) -> Dict[str, Any]:
    """What the `WeNet-*` response headers say, typed, for the JSON body."""
    parameters: Dict[str, Any] = {
        "wenet_mode": result.mode_id,
        "wenet_mode_reason": result.reason,
        "wenet_predicted_ms": round(result.predicted_ms, 3),
        "wenet_latency_ms": round(latency_ms, 3),
        "wenet_energy_source": result.energy_source,
    }
    if met is not None:
        parameters["wenet_budget_met"] = met
    if result.energy_mj is not None:
        parameters["wenet_energy_mj"] = round(result.energy_mj, 3)
    return parameters


def result_fields(result: Result, timing: str, *, latency_ms: float, met: Optional[bool]) -> Fields:
    """The same figures as `WeNet-*` response headers, as JSON would have them, with `Server-Timing`."""
    fields = [
        (b"wenet-mode", result.mode_id.encode("latin-1")),
        (b"wenet-mode-reason", result.reason.encode("latin-1")),
        (b"wenet-predicted-ms", _number(result.predicted_ms)),
        (b"wenet-latency-ms", _number(latency_ms)),
        (b"wenet-energy-source", result.energy_source.encode("latin-1")),
    ]
    if met is not None:
        fields.append((b"wenet-budget-met", b"true" if met else b"false"))
    if result.energy_mj is not None:
        fields.append((b"wenet-energy-mj", _number(result.energy_mj)))
    fields.append((b"server-timing", timing.encode("latin-1")))
    return fields


def _number(value: float) -> bytes:
    return repr(round(value, 3)).encode("latin-1")


class Reply(Response):
    """A 200 whose headers are given whole: the framework's own takes four times as long to make them."""

    def __init__(self, body: bytes, fields: Fields) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [*fields, (b"content-length", b"%d" % len(body))]
