"""LitServe: base64 in JSON as its documents show, and raw bytes, which FastAPI's annotations let it take.

`workers_per_device` stays 1 (equal threads) and `max_batch_size` 1 (one request is one image). Its timeout is one for
all requests, looked at when a worker takes a request up.
"""

import base64
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.base import JPEG, TENSOR, Command, Format, Peer, Place, Request, Served, numbers

JSON_PATH, RAW_PATH = "/predict", "/raw"


def _command(place: Place) -> Command:
    words = (str(place.python), "-m", "benchmarks.peers.apps.litserve_app", str(place.port))
    return Command(words)


def _base64(content: bytes, kind: str, served: Served) -> Request:
    del kind, served
    body = json.dumps({"x": base64.b64encode(content).decode()}).encode()
    return Request(JSON_PATH, {"Content-Type": "application/json"}, body)


def _from_base64(headers: Mapping[str, str], body: bytes) -> NDArray[np.float32]:
    del headers
    return numbers(base64.b64decode(json.loads(body)["y"]))


def _raw(content: bytes, kind: str, served: Served) -> Request:
    del kind, served
    return Request(RAW_PATH, {"Content-Type": "application/octet-stream"}, content)


def _from_raw(headers: Mapping[str, str], body: bytes) -> NDArray[np.float32]:
    del headers
    return numbers(body)


PEER = Peer(
    "litserve",
    "litserve",
    ("litserve==0.2.19", "uvicorn==0.54.0", "fastapi==0.165.0", "starlette==1.10.0"),
    _command,
    "/health",
    (
        Format("base64", _base64, _from_base64, (TENSOR, JPEG)),
        Format("raw", _raw, _from_raw, (TENSOR, JPEG)),
    ),
    "timeout, for all requests, when a worker takes one up",
)
