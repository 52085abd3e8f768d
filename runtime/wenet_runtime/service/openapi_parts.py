"""What the OpenAPI document is made of: schemas, headers, parameters and bodies of HTTP API v1. No data of a bundle."""

from typing import Any, Dict, List, Mapping

from wenet_runtime.budget import MAX_BUDGET_MJ, MAX_BUDGET_MS, MIN_BUDGET, ON_MISS
from wenet_runtime.manifest import DTYPES
from wenet_runtime.service.replies import MAX_TOP_K
from wenet_runtime.service.v2binary import HALVES, MAX_HEADER_BYTES
from wenet_runtime.service.v2request import BYTES

Json = Dict[str, Any]

NUMBER: Json = {"type": "number"}
TEXT: Json = {"type": "string"}
FLAG: Json = {"type": "boolean"}
OBJECT: Json = {"type": "object"}
BINARY: Json = {"type": "string", "format": "binary"}
COUNT: Json = {"type": "integer", "minimum": 0}
NAME: Json = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"}
BUDGET_MS: Json = {"type": "number", "minimum": MIN_BUDGET, "maximum": MAX_BUDGET_MS}
BUDGET_MJ: Json = {"type": "number", "minimum": MIN_BUDGET, "maximum": MAX_BUDGET_MJ}
SHARE: Json = {"type": "number", "minimum": 0, "maximum": 1}
ON_MISS_SCHEMA: Json = {"type": "string", "enum": list(ON_MISS)}
PRIORITY: Json = {"type": "integer", "minimum": 1, "maximum": 3}

# option: (schema, what it means); header `WeNet-…` and V2 parameter `wenet_…` follow from the name
OPTIONS: Mapping[str, "tuple[Json, str]"] = {
    "budget_ms": (BUDGET_MS, "end-to-end latency budget, ms"),
    "budget_mj": (BUDGET_MJ, "energy budget of one row, mJ"),
    "min_accuracy": (SHARE, "hard floor on the mode's validation accuracy"),
    "mode": (NAME, "the one mode to be used"),
    "on_miss": (ON_MISS_SCHEMA, "what happens when no mode fits"),
    "priority": (PRIORITY, "1 is first, 2 the default"),
}


def an_object(required: List[str], *, closed: bool = False, **members: Json) -> Json:
    """The schema of an object with these members; closed if it takes no others."""
    return {"type": "object", "required": required, "properties": members, "additionalProperties": not closed}


def a_list(items: Json, **limits: int) -> Json:
    """The schema of an array."""
    return {"type": "array", "items": items, **limits}


def refers(name: str) -> Json:
    """A reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


_DURATION = an_object(["count", "ns"], count=COUNT, ns=COUNT)
_SHAPE = a_list({"type": "integer"}, minItems=1, maxItems=8)
_SPECS = a_list(an_object(["name", "datatype", "shape"], name=TEXT, datatype=TEXT, shape=_SHAPE))
_READY = an_object(["ready"], ready={"const": True})
_MESSAGE_PARAMETERS = {
    "type": "object",
    "description": "wenet_* as the headers of these names; others of V2 are ignored",
    "properties": {
        **{f"wenet_{name}": schema for name, (schema, _) in OPTIONS.items()},
        "timeout": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1, "description": "deadline, µs; 0 is none"},
        "priority": {"type": "integer", "minimum": 0, "maximum": 3, "description": "as wenet_priority; 0 is default"},
        "binary_data_output": {**FLAG, "description": "whether outputs come as bytes; decides before Accept"},
    },
}
SCHEMAS: Mapping[str, Json] = {
    "Problem": an_object(
        ["type", "title", "status", "detail", "instance", "error"],
        type={"type": "string", "pattern": "^urn:wenet:problem:[a-z-]+$"},
        title=TEXT,
        status={"type": "integer"},
        detail=TEXT,
        instance=TEXT,
        error={**TEXT, "description": "the same as detail"},
        budget_ms=NUMBER,
        predicted_ms=NUMBER,
        fastest_mode=TEXT,
        retry_after_ms=COUNT,
        executed=FLAG,
    ),
    "InferInput": an_object(
        ["name", "datatype", "shape"],
        name=TEXT,
        datatype={"type": "string", "enum": [*DTYPES, *HALVES, BYTES]},
        shape=_SHAPE,
        data={"type": "array", "description": "flat or nested, row-major; numbers are finite"},
        parameters={"type": "object", "properties": {"binary_data_size": COUNT}},
    ),
    "InferRequest": an_object(
        ["inputs"],
        id=TEXT,
        inputs=a_list(refers("InferInput"), minItems=1),
        outputs=a_list(
            an_object(["name"], name=TEXT, parameters={"type": "object", "properties": {"binary_data": FLAG}})
        ),
        parameters=_MESSAGE_PARAMETERS,
    ),
    "ImageRequest": an_object(
        ["image_b64"],
        image_b64={"type": "string", "contentEncoding": "base64", "description": "a JPEG or PNG file"},
        id=TEXT,
        parameters=_MESSAGE_PARAMETERS,
    ),
    "InferReply": an_object(
        ["model_name", "model_version", "outputs", "parameters"],
        model_name=TEXT,
        model_version={**TEXT, "description": "the mode that answered"},
        id=TEXT,
        parameters={"type": "object", "description": "the WeNet-* response headers, typed"},
        outputs=a_list(
            an_object(
                ["name", "datatype", "shape"],
                name=TEXT,
                datatype=TEXT,
                shape=_SHAPE,
                data=a_list({"type": ["number", "null"]}),
                parameters={"type": "object", "properties": {"binary_data_size": COUNT}},
            )
        ),
        top_k=a_list(
            a_list(an_object(["index", "label", "score"], index=COUNT, label=TEXT, score={"type": ["number", "null"]}))
        ),
    ),
    "Server": an_object(["name", "version", "extensions"], name=TEXT, version=TEXT, extensions=a_list(TEXT)),
    "Model": an_object(
        ["name", "versions", "platform", "inputs", "outputs"],
        name=TEXT,
        versions=a_list(TEXT),
        platform=TEXT,
        inputs=_SPECS,
        outputs=_SPECS,
    ),
    "Statistics": an_object(
        ["model_stats"],
        model_stats=a_list(
            an_object(
                ["name", "version", "last_inference", "inference_count", "execution_count", "inference_stats"],
                name=TEXT,
                version=TEXT,
                last_inference=COUNT,
                inference_count=COUNT,
                execution_count=COUNT,
                inference_stats={"type": "object", "additionalProperties": _DURATION},
                batch_stats=a_list(OBJECT),
            )
        ),
    ),
    "Live": an_object(["live"], live=FLAG),
    "Ready": _READY,
    "Object": OBJECT,
    "Policy": an_object(
        [],
        closed=True,
        budget_ms={"anyOf": [BUDGET_MS, {"type": "null"}]},
        budget_mj={"anyOf": [BUDGET_MJ, {"type": "null"}]},
        min_accuracy={"anyOf": [SHARE, {"type": "null"}]},
        mode={"anyOf": [NAME, {"type": "null"}]},
        on_miss=ON_MISS_SCHEMA,
    ),
    "BundlePath": an_object(["path"], closed=True, path=TEXT),
    "Swapped": an_object(["bundle_sha256", "previous_sha256"], bundle_sha256=TEXT, previous_sha256=TEXT),
}


def parameter(name: str, where: str, schema: Json, description: str) -> Json:
    """One parameter of an operation."""
    return {"name": name, "in": where, "required": where == "path", "schema": schema, "description": description}


def header_name(option: str) -> str:
    """budget_ms → WeNet-Budget-Ms."""
    return "WeNet-" + "-".join(part.capitalize() for part in option.split("_"))


INFER_PARAMETERS: List[Json] = [
    *(parameter(header_name(name), "header", schema, text) for name, (schema, text) in OPTIONS.items()),
    parameter("X-Request-Id", "header", NAME, "echoed; made by the server if absent"),
    parameter("grpc-timeout", "header", {"type": "string", "pattern": "^[0-9]{1,8}[HMSmun]$"}, "a further deadline"),
    parameter(
        "Inference-Header-Content-Length",
        "header",
        {"type": "integer", "minimum": 0, "maximum": MAX_HEADER_BYTES},
        "bytes of JSON before binary tensors; 0 for one raw tensor; with application/octet-stream only",
    ),
    parameter("top_k", "query", {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K}, "best labels of each row"),
]

# header: what it says
REPLY_HEADERS: Mapping[str, str] = {
    "WeNet-Mode": "the mode that answered",
    "WeNet-Mode-Reason": "fits, degraded, pinned, energy, thermal, only-mode, cascade or guard",
    "WeNet-Predicted-Ms": "predicted end-to-end latency, ms",
    "WeNet-Latency-Ms": "measured, from the first byte of the request to this head",
    "WeNet-Budget-Met": "true or false; absent without a budget",
    "WeNet-Energy-Mj": "of one row; absent when unknown",
    "WeNet-Energy-Source": "rail:<name>, nvml, rapl, estimate, sim or none",
    "Server-Timing": "recv, decode, queue, infer, encode and total, ms",
    "X-Request-Id": "of this request",
}
