"""What a request leaves behind is gone with it, and does not wait with its body for the garbage collector."""

import gc
import http.client
import json
from typing import Any, Dict, Iterator, Tuple

import pytest

from tests.runtime.fakes import PATIENCE_S, SettableBackend, ones, v2_body
from tests.runtime.served import Running, servers
from wenet_runtime.bundle import Bundle

MANY = 200
RAW = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def running(bundle: Bundle, backend: SettableBackend) -> Iterator[Running]:
    with servers(bundle, backend) as start:
        yield start()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (ones().tobytes(), RAW, 200),
        (json.dumps(v2_body(ones())).encode(), JSON, 200),
        (ones().tobytes(), {**RAW, "WeNet-Budget-Ms": "0.001"}, 422),
        (ones().tobytes(), {**RAW, "WeNet-Budget-Ms": "soon"}, 400),
        (ones().tobytes()[:4], RAW, 400),
    ],
    ids=["raw", "JSON", "refused", "a bad header", "a bad body"],
)
def test_a_request_leaves_nothing_for_the_collector(
    running: Running, body: bytes, headers: Dict[str, str], status: int
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE_S)

    def ask() -> Tuple[int, Any]:
        connection.request("POST", "/infer", body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()

    for _ in range(20):  # what is made once
        assert ask()[0] == status
    gc.collect()
    gc.disable()
    try:
        for _ in range(MANY):
            ask()
        assert gc.collect() < MANY  # less than one object of each
    finally:
        gc.enable()
        connection.close()
