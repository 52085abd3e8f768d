"""Ours: the daemon, asked with a raw tensor, Open Inference Protocol V2 in binary or JSON, or an image."""

import json

from benchmarks.peers.base import (
    JPEG,
    TENSOR,
    Command,
    Format,
    Peer,
    Place,
    Request,
    Served,
    v2_answer,
    v2_binary,
    v2_json,
)

MODEL_NAME = "benchmark"  # what the bundles of `serving_models` are called
OCTETS = "application/octet-stream"


def _command(place: Place) -> Command:
    words = [str(place.python), "-m", "wenet_runtime.cli", "--bundle", str(place.bundle), "--port", str(place.port)]
    return Command((*words, "--threads", str(place.served.threads), *place.flags))


def _raw(content: bytes, kind: str, served: Served) -> Request:
    del served
    if kind == JPEG:
        return Request("/infer", {"Content-Type": "image/jpeg", "Accept": OCTETS}, content)
    return Request("/infer", {"Content-Type": OCTETS, "Inference-Header-Content-Length": "0"}, content)


def _binary(content: bytes, kind: str, served: Served) -> Request:
    del kind
    return v2_binary(f"/v2/models/{MODEL_NAME}/infer", content, served, {})


def _json(content: bytes, kind: str, served: Served) -> Request:
    body = json.dumps(v2_json(content, kind, served)).encode()
    return Request(f"/v2/models/{MODEL_NAME}/infer", {"Content-Type": "application/json"}, body)


PEER = Peer(
    "wenet",
    None,
    (),
    _command,
    "/v2/health/ready",
    (
        Format("raw", _raw, v2_answer, (TENSOR, JPEG)),
        Format("V2 binary", _binary, v2_answer),
        Format("V2 JSON", _json, v2_answer, small_only=True),
    ),
    "budget per request, refused by prediction",
)
