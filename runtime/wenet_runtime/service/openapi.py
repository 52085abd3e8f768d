"""GET /openapi.json: every route, what it takes and every status it may answer with. Composed when first asked for."""

from functools import lru_cache
from typing import Any, Dict, List, Mapping, Optional

from wenet_runtime import __version__
from wenet_runtime.service.bodies import IMAGES, JSON, NPY, OCTETS
from wenet_runtime.service.encoding import json_bytes
from wenet_runtime.service.openapi_parts import (
    BINARY,
    INFER_PARAMETERS,
    NAME,
    REPLY_HEADERS,
    SCHEMAS,
    TEXT,
    Json,
    parameter,
    refers,
)
from wenet_runtime.service.problems import PROBLEM_JSON, PROBLEMS

MODEL = "/v2/models/{model}"
MODE = MODEL + "/versions/{version}"


@lru_cache(maxsize=1)
def openapi_json() -> bytes:
    """The document as bytes."""
    return json_bytes(openapi())


def openapi() -> Json:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "wenet-runtime", "version": __version__, "description": "HTTP API v1"},
        "paths": _paths(),
        "components": {
            "schemas": dict(SCHEMAS),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # Without a token file nothing but /admin asks for one.
        "security": [{}, {"token": []}],
    }


def _paths() -> Dict[str, Json]:
    model = parameter("model", "path", TEXT, "the model's name, see GET /modes")
    version = parameter("version", "path", NAME, "a mode's id")
    paths: Dict[str, Json] = {
        "/infer": {"post": _infer("Answer within a budget", [], image_b64=True)},
        MODEL + "/infer": {"post": _infer("The same by Open Inference Protocol V2", [model])},
        MODE + "/infer": {"post": _infer("The same with a pinned mode", [model, version])},
        "/v2": {"get": _get("The server and its extensions", "Server")},
        "/v2/models/stats": {"get": _get("How often and how long each mode worked", "Statistics")},
    }
    for path, given in ((MODEL, [model]), (MODE, [model, version])):
        paths[path] = {"get": _get("Inputs, outputs and versions, which are modes", "Model", given)}
        paths[path + "/ready"] = {"get": _get("Whether it can answer now", "Ready", given)}
        paths[path + "/stats"] = {"get": _get("How often and how long it worked", "Statistics", given)}
    paths["/v2/health"] = {"get": _get("Modes and meter, and what is the matter with them", "Object")}
    paths["/v2/health/live"] = {"get": _get("The event loop turns", "Live")}
    paths["/v2/health/ready"] = {"get": _get("A warm mode can answer", "Ready")}
    paths["/modes"] = {"get": _get("The modes and what they cost here", "Object")}
    paths["/metrics"] = {"get": _operation("Prometheus metrics", {"text/plain": {"schema": TEXT}})}
    paths["/openapi.json"] = {"get": _get("This document", "Object")}
    paths["/admin/policy"] = {
        "get": _admin("What holds for requests that bring no options of their own", "Policy"),
        "put": _admin("Replace it as a whole", "Policy", takes="Policy"),
    }
    paths["/admin/bundle"] = {"post": _admin("Serve another bundle", "Swapped", takes="BundlePath")}
    paths["/admin/rollback"] = {"post": _admin("Serve the previous bundle again", "Swapped")}
    paths["/admin/drain"] = {"post": _admin("Finish and stop", "Object", success=202)}
    paths["/admin/recalibrate"] = {"post": _admin("Measure the modes again", "Object", success=202)}
    return paths


def _infer(summary: str, path: List[Json], *, image_b64: bool = False) -> Json:
    takes = refers("InferRequest")
    content = {JSON: {"schema": {"anyOf": [takes, refers("ImageRequest")]} if image_b64 else takes}}
    content.update({media: {"schema": BINARY} for media in (OCTETS, NPY, *IMAGES)})
    replies = {JSON: {"schema": refers("InferReply")}, OCTETS: {"schema": BINARY}, NPY: {"schema": BINARY}}
    operation = _operation(summary, replies, [*path, *INFER_PARAMETERS], headers=REPLY_HEADERS)
    operation["requestBody"] = {"required": True, "content": content}
    return operation


def _get(summary: str, schema: str, parameters: Optional[List[Json]] = None) -> Json:
    return _operation(summary, {JSON: {"schema": refers(schema)}}, parameters)


def _admin(summary: str, schema: str, *, takes: Optional[str] = None, success: int = 200) -> Json:
    operation = _operation(summary, {JSON: {"schema": refers(schema)}}, success=success)
    operation["security"] = [{"token": []}]
    if takes is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": refers(takes)}}}
    return operation


def _operation(
    summary: str,
    content: Json,
    parameters: Optional[List[Json]] = None,
    *,
    headers: Optional[Mapping[str, str]] = None,
    success: int = 200,
) -> Json:
    reply: Json = {"description": "OK" if success == 200 else "begun", "content": content}
    if headers is not None:
        reply["headers"] = {name: {"schema": TEXT, "description": text} for name, text in headers.items()}
    return {"summary": summary, "parameters": parameters or [], "responses": {str(success): reply, **_problems()}}


def _problems() -> Dict[str, Any]:
    """Every status of a problem, and which problems have it."""
    slugs: Dict[int, List[str]] = {}
    for slug, (status, _) in PROBLEMS.items():
        slugs.setdefault(status, []).append(slug)
    schema = {PROBLEM_JSON: {"schema": refers("Problem")}}
    return {str(status): {"description": ", ".join(slugs[status]), "content": schema} for status in sorted(slugs)}
