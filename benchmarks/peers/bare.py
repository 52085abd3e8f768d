"""The least that serves at all: a bare ASGI handler, and FastAPI, both of which run the session in a thread."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.base import (
    JPEG,
    TENSOR,
    Command,
    Format,
    Peer,
    Place,
    Request,
    Served,
    numbers,
)


def _raw(content: bytes, kind: str, served: Served) -> Request:
    del served
    media = "image/jpeg" if kind == JPEG else "application/octet-stream"
    return Request("/infer", {"Content-Type": media}, content)


def _answer(headers: Mapping[str, str], body: bytes) -> NDArray[np.float32]:
    del headers
    return numbers(body)


def _peer(name: str) -> Peer:
    def command(place: Place) -> Command:
        return Command((str(place.python), "-m", "benchmarks.peers.apps.bare_app", name, str(place.port)))

    return Peer(name, None, (), command, "/health", (Format("raw", _raw, _answer, (TENSOR, JPEG)),))


ASGI = _peer("asgi")
FASTAPI = _peer("fastapi")
