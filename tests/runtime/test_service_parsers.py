"""Every parser of requests on many damaged messages: what comes of them is a tensor that fits, or the client's error.

A drawn number is the seed of `CASES` messages, so that thousands cost seconds.
"""

import base64
import io
import json
import warnings
from random import Random
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.requests import Request

from tests.runtime.fakes import ones, v2_body
from tests.runtime.fuzzing import examples
from wenet_runtime.bundle import Bundle, Manifest
from wenet_runtime.service.bodies import IMAGES, JSON, NPY, OCTETS, decode, decodes_quickly
from wenet_runtime.service.options import Defaults, header_options, parameter_options, request_options
from wenet_runtime.service.problems import PROBLEMS, Problem
from wenet_runtime.service.replies import wanted_reply
from wenet_runtime.service.v2request import Decoded

CASES = 20
SEEDS = st.integers(0, 2**62)
# What parsers stumble over, put where something else stood.
PIECES = [
    b"-1", b"0", b"1e400", b"9" * 25, b"18446744073709551616", b"-0.0", b"NaN", b"null", b"true", b"[", b"]", b"{",
    b"}", b'"', b"\\", b"\\u0000", b"\\ud800", b",", b":", b"BYTES", b"FP16", b"BF16", b'"data"', b'"shape"', b"\x00",
    b"\xff" * 4, b"\x00\x00\x00\x80", b"[[[[[[[[", b'{"a":{"a":', b"binary_data_size", b"image_b64",
    b"\xc2\xb2", b"1.0", b"  ",
]  # fmt: skip


def damaged(random: Random, valid: bytes) -> bytes:
    """The message with one to four pieces cut, doubled, replaced or inserted."""
    body = bytearray(valid)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(body) + 1)
        kind = random.randrange(6)
        if kind == 0:
            del body[at : at + random.randint(1, 8)]
        elif kind == 1:
            body[at:at] = random.choice(PIECES)
        elif kind == 2:
            piece = random.choice(PIECES)
            body[at : at + len(piece)] = piece
        elif kind == 3:
            body[at : at + 1] = bytes([random.randrange(256)])
        elif kind == 4:
            body[at:at] = body[at : at + random.randint(1, 40)]
        elif random.random() < 0.3:
            del body[at:]
    return bytes(body)


def image(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), 77).save(file, kind)
    return file.getvalue()


def npy(values: Any, version: Tuple[int, int]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, values, version=version)
    return file.getvalue()


def binary(datatype: str, shape: List[int], data: bytes) -> Tuple[bytes, int]:
    one = {"name": "input", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [one], "outputs": [{"name": "logits"}], "id": "7", "parameters": {}}).encode()
    return head + data, len(head)


FILES = [image("PNG"), image("JPEG")]
FRAMED = b"".join(len(one).to_bytes(4, "little") + one for one in FILES)
# (media type, message, bytes of JSON before tensors)
MESSAGES: List[Tuple[str, bytes, Optional[int]]] = [
    (OCTETS, *binary("FP32", [1, 1, 8, 8], ones().tobytes())),
    (OCTETS, *binary("FP16", [2, 1, 8, 8], bytes(256))),
    (OCTETS, *binary("BYTES", [2], FRAMED)),
    (OCTETS, ones().tobytes(), 0),
    (JSON, json.dumps(v2_body(ones(), id="7", parameters={"wenet_budget_ms": 5})).encode(), None),
    (JSON, json.dumps({"image_b64": base64.b64encode(FILES[0]).decode()}).encode(), None),
    (NPY, npy(ones(2), (1, 0)), None),
    (NPY, npy(ones(), (2, 0)), None),
    *((media, file, None) for media, file in zip(("image/png", "image/jpeg"), FILES)),
]


def check(manifest: Manifest, media: str, body: bytes, length: Optional[str], accept: bytes) -> bool:
    """Whether it was taken; and whether what came of it keeps the parsers' promises."""
    try:
        decodes_quickly(media, body, length)
        found = decode(media, body, length, manifest)
        parameter_options(found.parameters)
        wanted = wanted_reply(request([(b"accept", accept)]), manifest, found)
    except Problem as problem:
        assert PROBLEMS[problem.slug][0] < 500 and len(problem.detail) < 2000, problem.slug  # noqa: PT017, PT018
        return False
    values = found.inputs["input"]
    assert (values.dtype, values.shape[1:]) == (np.float32, (1, 8, 8))
    assert 1 <= values.shape[0] <= manifest.max_batch
    assert wanted.outputs == ("logits",)
    return True


def request(headers: List[Tuple[bytes, bytes]], query: bytes = b"") -> Request:
    return Request({"type": "http", "headers": headers, "query_string": query})


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: f"{one[0]}-{one[2]}")
def test_the_undamaged_messages_are_taken(bundle: Bundle, message: Tuple[str, bytes, Optional[int]]) -> None:
    media, body, length = message
    assert check(bundle.manifest, media, body, None if length is None else str(length), b"")


@examples()
@given(seed=SEEDS)
def test_no_damage_to_a_body_is_more_than_refused(bundle: Bundle, seed: int) -> None:
    random = Random(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python and Pillow, about what such a message says
        for _ in range(CASES):
            media, body, length = random.choice(MESSAGES)
            header = None if length is None else str(length)
            if length and random.random() < 0.3:
                header = random.choice(
                    [str(length + random.randint(-3, 3)), str(random.randrange(2**70)), "", "x", "-1"]
                )
            accept = random.choice([b"", b"*/*", JSON.encode(), OCTETS.encode(), NPY.encode(), b",;,\xff"])
            check(bundle.manifest, media, damaged(random, body), header, accept)


VALUES = ["5", "0.5", "m0", "late", "reject", "1", "3", "100m", "5S", "250", "99999999H"]
HEADERS = [
    "wenet-budget-ms", "wenet-budget-mj", "wenet-min-accuracy", "wenet-mode", "wenet-on-miss", "wenet-priority",
    "wenet-x", "grpc-timeout", "x-envoy-expected-rq-timeout-ms", "accept", "content-type",
    "inference-header-content-length",
]  # fmt: skip


@examples()
@given(seed=SEEDS)
def test_no_headers_and_no_query_are_more_than_refused(bundle: Bundle, seed: int) -> None:
    random = Random(seed)
    empty = Decoded({})
    for _ in range(CASES):
        headers = []
        for _ in range(random.randint(0, 3)):
            value = random.choice(VALUES).encode()
            headers.append(
                (random.choice(HEADERS).encode(), damaged(random, value) if random.random() < 0.7 else value)
            )
        query = damaged(random, b"top_k=5") if random.random() < 0.7 else b"top_k=100"
        try:
            found = request_options(header_options(request(headers), trust_proxy_headers=True), {}, Defaults())
            wanted = wanted_reply(request(headers, query), bundle.manifest, empty)
        except Problem as problem:
            assert problem.slug in ("bad-header", "malformed-request") and len(problem.detail) < 400  # noqa: PT017, PT018
            continue
        for limit in (found.budget.latency_ms, found.budget.energy_mj, found.protocol_ms):
            assert limit is None or 0 <= limit < float("inf")
        assert found.priority in (1, 2, 3)
        assert 0 <= wanted.top_k <= 100


ANYTHING: List[Callable[[Random], Any]] = [
    lambda random: random.choice(VALUES),
    lambda random: random.choice([None, True, False, [], {}, "", float("inf"), float("nan"), 10**400, -(10**400)]),
    lambda random: random.randint(-(2**70), 2**70),
    lambda random: random.uniform(-10, 10),
    lambda random: random.randint(-1, 4),
]


@examples()
@given(seed=SEEDS)
def test_no_parameters_are_more_than_refused(seed: int) -> None:
    random = Random(seed)
    names = [*(name.replace("-", "_") for name in HEADERS), "timeout", "priority", "binary_data_output", "other"]
    for _ in range(CASES):
        parameters: Dict[str, Any] = {
            random.choice(names): random.choice(ANYTHING)(random) for _ in range(random.randint(0, 3))
        }
        try:
            found = request_options({}, parameter_options(parameters), Defaults())
        except Problem as problem:
            assert problem.slug in ("malformed-request", "conflicting-options")  # noqa: PT017 - valid ones are drawn
            assert len(problem.detail) < 1000  # noqa: PT017 - as above
            continue
        for limit in (found.budget.latency_ms, found.budget.energy_mj, found.protocol_ms):
            assert limit is None or 0 <= limit < float("inf")


def test_all_media_types_are_among_the_messages() -> None:
    assert {media for media, _, _ in MESSAGES} == {JSON, OCTETS, NPY, *IMAGES}
