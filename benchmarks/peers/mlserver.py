"""MLServer, with its default of one worker process and with `parallel_workers=0`: V2 JSON, and base64 by its codec.

It has no deadline of requests. uvloop is held below 0.22, with which its worker dies at its start.
"""

import base64
import json
import socket
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.base import (
    JPEG,
    MODEL,
    ROOT,
    TENSOR,
    Command,
    Format,
    Peer,
    Place,
    Request,
    Served,
    numbers,
    v2_json,
)

PATH = f"/v2/models/{MODEL}/infer"
JSON_HEADERS = {"Content-Type": "application/json"}


def _json(content: bytes, kind: str, served: Served) -> Request:
    members = v2_json(content, kind, served)
    members["inputs"][0]["parameters"] = {"content_type": "np"}
    return Request(PATH, JSON_HEADERS, json.dumps(members).encode())


def _from_json(headers: Mapping[str, str], body: bytes) -> NDArray[np.float32]:
    del headers
    return np.asarray(json.loads(body)["outputs"][0]["data"], np.float32)


def _base64(content: bytes, kind: str, served: Served) -> Request:
    del kind
    tensor = {
        "name": served.input,
        "shape": [1, 1],
        "datatype": "BYTES",
        "data": [base64.b64encode(content).decode()],
        "parameters": {"content_type": "base64"},
    }
    return Request(PATH, JSON_HEADERS, json.dumps({"inputs": [tensor]}).encode())


def _from_base64(headers: Mapping[str, str], body: bytes) -> NDArray[np.float32]:
    del headers
    return numbers(base64.b64decode(json.loads(body)["outputs"][0]["data"][0]))


def _peer(name: str, workers: int | None) -> Peer:
    def command(place: Place) -> Command:
        others = _free_ports(2)
        settings = {
            "host": "127.0.0.1",
            "http_port": place.port,
            "grpc_port": others[0],
            "metrics_port": others[1],
            "metrics_dir": str(place.folder),
            **({} if workers is None else {"parallel_workers": workers}),
        }
        (place.folder / "settings.json").write_text(json.dumps(settings))
        model = {"name": MODEL, "implementation": "benchmarks.peers.apps.mlserver_app.Served"}
        (place.folder / "model-settings.json").write_text(json.dumps(model))
        mlserver = str(place.python.parent / "mlserver")
        return Command((str(place.python), mlserver, "start", str(place.folder)), {"PYTHONPATH": str(ROOT)})

    return Peer(
        name,
        "mlserver",
        ("mlserver==1.7.1", "uvloop==0.21.0", "uvicorn==0.54.0"),
        command,
        f"/v2/models/{MODEL}/ready",
        (
            Format("base64", _base64, _from_base64, (TENSOR, JPEG)),
            Format("V2 JSON", _json, _from_json),
        ),
    )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


DEFAULT = _peer("mlserver", None)
IN_PROCESS = _peer("mlserver parallel_workers=0", 0)
