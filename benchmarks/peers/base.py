"""What a peer is: a server of others (or ours), how it is installed, started and asked. No process is held here.

The peers' own environments import this file, so it needs NumPy and the standard library only.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
SERVED = "BENCHMARK_SERVED"  # names the file that `Served` lies in, for the peers' processes
TENSOR, JPEG = "tensor", "jpeg"
MODEL = "m"  # what peers that name their models call it


@dataclass(frozen=True)
class Served:
    """What every server of a question serves, with which options.

    Attributes:
        models: ONNX files. The first answers; the second, if there is one, answers where the first number of a tensor
            is above 0.5, so that one server has a quick and a slow kind of request.
        input: its name.
        shape: of one request, batch 1.
        outputs: numbers of one answer.
        threads: of one inference.
        limit_ms: how long a request may wait, as the peer's documents say it; None leaves the peer's default.
        most_waiting: how many may wait, where the peer can say that.
    """

    models: tuple[str, ...]
    input: str
    shape: tuple[int, ...]
    outputs: int
    threads: int = 1
    limit_ms: float | None = None
    most_waiting: int = 64

    def write(self, path: Path) -> None:
        """Where `served_in` finds it."""
        path.write_text(json.dumps(asdict(self)))


def served_in(path: str) -> Served:
    """Read what `Served.write` wrote."""
    members = json.loads(Path(path).read_text())
    return Served(**{**members, "models": tuple(members["models"]), "shape": tuple(members["shape"])})


@dataclass(frozen=True)
class Request:
    """One POST."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def to_bytes(self) -> bytes:
        """As it goes over the wire."""
        lines = {"Host": "127.0.0.1", **self.headers, "Content-Length": str(len(self.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST {self.path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + self.body


Encode = Callable[[bytes, str, Served], Request]
Decode = Callable[[Mapping[str, str], bytes], NDArray[np.float32]]


@dataclass(frozen=True)
class Format:
    """How a peer is asked.

    Attributes:
        name: of the format.
        encode: (content, kind, served) → the request; the content is a tensor's bytes or a JPEG file's.
        decode: (headers by lower-case name, body) → the answer's numbers.
        kinds: what it can carry.
        small_only: a courtesy that nobody would send large tensors in.
    """

    name: str
    encode: Encode
    decode: Decode
    kinds: tuple[str, ...] = (TENSOR,)
    small_only: bool = False


@dataclass(frozen=True)
class Place:
    """Where and with what a server is started.

    Attributes:
        served: what it serves, and the file that says so.
        folder: scratch of its own.
        python: the interpreter of its environment.
        port: on 127.0.0.1.
        bundle: what ours serves.
        flags: further ones of ours.
    """

    served: Served
    served_path: Path
    folder: Path
    python: Path
    port: int
    bundle: Path | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """A command line and what it adds to the environment."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A server.

    Attributes:
        name: what it is called in the results.
        environment: its folder among the environments; None is this interpreter.
        packages: what its environment is made of, pinned.
        command: how it is started, at a place; may write files there.
        ready: path that answers 200 once it serves.
        formats: best first.
        waits: how the peer bounds waiting, in a line; "" if it cannot.
    """

    name: str
    environment: str | None
    packages: tuple[str, ...]
    command: Callable[[Place], Command]
    ready: str
    formats: tuple[Format, ...]
    waits: str = ""


def numbers(content: bytes) -> NDArray[np.float32]:
    """Raw little-endian floats."""
    return np.frombuffer(content, "<f4")


def v2_answer(headers: Mapping[str, str], body: bytes) -> NDArray[np.float32]:
    """The first output of an Open Inference Protocol reply, binary or JSON."""
    length = headers.get("inference-header-content-length")
    if length is not None:
        return numbers(body[int(length) :])
    return np.asarray(json.loads(body)["outputs"][0]["data"], np.float32)


def v2_json(content: bytes, kind: str, served: Served) -> dict[str, Any]:
    """An Open Inference Protocol request of one tensor, as JSON members."""
    if kind != TENSOR:
        raise ValueError(f"V2 JSON carries no {kind}")
    shape = list(served.shape)
    return {
        "inputs": [{"name": served.input, "shape": shape, "datatype": "FP32", "data": numbers(content).tolist()}],
    }


def v2_binary(path: str, content: bytes, served: Served, parameters: Mapping[str, Any]) -> Request:
    """An Open Inference Protocol request of one binary tensor that wants a binary reply."""
    tensor = {
        "name": served.input,
        "shape": list(served.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(content)},
    }
    members = {"inputs": [tensor], "parameters": {"binary_data_output": True, **parameters}}
    head = json.dumps(members).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request(path, headers, head + content)
