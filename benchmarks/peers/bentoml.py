"""BentoML: one worker, base64 in JSON. Its timeout is one for all requests and ends runs that take longer, too."""

import base64
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.base import JPEG, ROOT, TENSOR, Command, Format, Peer, Place, Request, Served, numbers


def _command(place: Place) -> Command:
    app = "benchmarks.peers.apps.bentoml_app:Inference"
    words = (str(place.python), "-m", "bentoml", "serve", app, "--host", "127.0.0.1", "--port", str(place.port))
    home = {"BENTOML_HOME": str(place.folder), "BENTOML_DO_NOT_TRACK": "true", "PYTHONPATH": str(ROOT)}
    return Command((*words, "--working-dir", str(ROOT)), home)


def _base64(content: bytes, kind: str, served: Served) -> Request:
    del kind, served
    body = json.dumps({"x": base64.b64encode(content).decode()}).encode()
    return Request("/infer", {"Content-Type": "application/json"}, body)


def _from_base64(headers: Mapping[str, str], body: bytes) -> NDArray[np.float32]:
    del headers
    return numbers(base64.b64decode(json.loads(body)["y"]))


PEER = Peer(
    "bentoml",
    "bentoml",
    ("bentoml==1.4.39", "uvicorn==0.54.0", "starlette==1.10.0"),
    _command,
    "/readyz",
    (Format("base64", _base64, _from_base64, (TENSOR, JPEG)),),
    "traffic.timeout, for all requests, also of what runs",
)
