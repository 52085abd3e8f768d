"""Requests as bytes, right ones and all kinds of wrong ones. Nothing is sent here."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.daemon import CELLS, valid_body
from tests.supernets import SIZE

PATHS = (
    "/infer", "/v2/models/tiny/infer", "/v2/models/tiny/versions/m0/infer", "/v2", "/modes", "/v2/health/live",
    "/v2/health/ready", "/v2/models/tiny", "/v2/models/stats", "/metrics", "/openapi.json", "/nowhere", "*", "",
    "//", "/%2e%2e/%2e%2e/etc/passwd", "/v2/models/%00/infer", "/infer?top_k=-1", "/infer?top_k=5&top_k=6",
    "/" + "a" * 3000,
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW", "get", "P\0ST")
NAMES = (
    "WeNet-Budget-Ms", "WeNet-Budget-Mj", "WeNet-Min-Accuracy", "WeNet-Mode", "WeNet-On-Miss", "WeNet-Priority",
    "WeNet-Unknown", "X-Request-Id", "traceparent", "grpc-timeout", "x-envoy-expected-rq-timeout-ms", "Content-Type",
    "Inference-Header-Content-Length", "Content-Length", "Transfer-Encoding", "Content-Encoding", "Accept", "Host",
    "Connection", "Upgrade", "Expect", "Authorization", "Range", "Cookie", "Accept-Encoding", "Te", "Trailer",
)  # fmt: skip
VALUES = (
    "", "0", "-1", "1", "nan", "inf", "1e309", "50", "0.001", "600001", "00000000050", "5,5", "m0", "m9", "degrade",
    "reject", "late", "chunked", "identity", "gzip", "chunked, gzip", "close", "keep-alive", "websocket", "h2c",
    "100-continue", "application/json", "application/octet-stream", "application/x-npy", "image/png", "image/jpeg",
    "multipart/form-data; boundary=x", "text/html", "*/*", "5m", "99999999S", "1x", "18446744073709551616", "+5", "5 ",
    "٥", "\x01", "\xff\xfe", "a" * 200, "Bearer x", "%s%n", "${jndi:x}", "127.0.0.1", "evil.example", "64", "65537",
)  # fmt: skip
JUNK: tuple[object, ...] = (
    None, True, -1, 0, 1, 2**63, 2**64, 1e308, 0.5, "", "x", "input", "FP32", "BYTES", "INT64", "\ud800", [], {},
    [[]], [[[0]]], [None], [-1], [0], [2**40, 2**40], [1, 1, SIZE, SIZE], {"a": {}}, [1] * 1000,
)  # fmt: skip
BUDGET = b"WeNet-Budget-Ms: 5000\r\n"


@dataclass(frozen=True)
class Case:
    """What one client sends.

    Attributes:
        kind: of the mistake.
        pieces: sent one after another, with a pause between.
        whole: it is as much as a client has to say, so that the server owes an answer, or the end.
    """

    kind: str
    pieces: "tuple[bytes, ...]"
    whole: bool = True


def request(body: bytes = b"", *, method: str = "POST", path: str = "/infer", more: bytes = b"") -> bytes:
    """A right request."""
    kind = b"Content-Type: application/json\r\n" if body else b""
    length = b"Content-Length: %d\r\n" % len(body) if body or method == "POST" else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode("latin-1", "replace")
    return head + kind + length + more + b"\r\n" + body


def chunks(body: bytes, size: int) -> bytes:
    """A body in chunks."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def in_chunks(content: bytes, more: bytes = b"") -> bytes:
    """A request whose body is said to come in chunks."""
    head = (
        b"POST /infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    )
    return head + more + b"\r\n" + content


def _mutated(rng: random.Random, data: bytes) -> bytes:
    """Some bytes changed, cut out or put in."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(found) + 1)
        how = rng.random()
        if how < 0.5 and at < len(found):
            found[at] = rng.randrange(256)
        elif how < 0.75:
            found[at:at] = rng.randbytes(rng.randint(1, 20))
        else:
            del found[at : at + rng.randint(1, 20)]
    return bytes(found)


def _pipelined(rng: random.Random) -> Case:
    right = (request(valid_body()), request(method="GET", path="/v2/health/live"), request(valid_body(), more=BUDGET))
    sent = [rng.choice(right) for _ in range(rng.randint(2, 5))]
    if rng.random() < 0.5:
        sent.append(_mutated(rng, rng.choice(right)))
    return Case("pipelined", (b"".join(sent),))


def _chunked(rng: random.Random) -> Case:
    body = valid_body()
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: in_chunks(chunks(body, rng.randint(1, 200))),
        lambda: in_chunks(b"zz\r\n" + body),
        lambda: in_chunks(b"ffffffffffffffff\r\n" + body),
        lambda: in_chunks(b"-5\r\nhello\r\n0\r\n\r\n"),
        lambda: in_chunks(b"5;x=" + b"y" * rng.randint(1, 20_000) + b"\r\nhello\r\n0\r\n\r\n"),
        lambda: in_chunks(chunks(body, 100)[:-2] + b"Trailer: x\r\nContent-Length: 5\r\n\r\n"),
        lambda: in_chunks(b"0\r\n\r\n"),
        lambda: in_chunks(_mutated(rng, chunks(body, 50))),
        lambda: in_chunks(chunks(body, 100), b"Transfer-Encoding: chunked\r\n"),
        lambda: in_chunks(chunks(b"x" * 17_000_000, 1_000_000)) if rng.random() < 0.05 else in_chunks(b""),
    )
    sent = rng.choice(ways)()
    return Case("chunked", (sent,), whole=sent.endswith(b"\r\n\r\n"))


def _both_lengths(rng: random.Random) -> Case:
    length = rng.choice((b"0", b"5", b"%d" % len(valid_body()), b"-1", b"99999999999999999999", b"5, 5", b"x", b" 5 "))
    more = b"Content-Length: %s\r\n" % length
    if rng.random() < 0.5:
        return Case("two lengths", (in_chunks(chunks(valid_body(), 100), more),))
    return Case("two lengths", (request(valid_body(), more=more),))


def _long_head(rng: random.Random) -> Case:
    if rng.random() < 0.5:
        more = b"X-A: " + b"a" * rng.randint(8_000, 100_000) + b"\r\n"
    else:
        more = b"".join(b"X-%d: b\r\n" % at for at in range(rng.randint(90, 1000)))
    return Case("long head", (request(method="GET", path="/v2/health/live", more=more),))


def _early_close(rng: random.Random) -> Case:
    sent = request(valid_body())
    return Case("early close", (sent[: rng.randrange(len(sent))],), whole=False)


def _trickle(rng: random.Random) -> Case:
    sent = request(valid_body())
    cuts = sorted(rng.randrange(len(sent)) for _ in range(rng.randint(2, 12)))
    pieces = tuple(sent[one:other] for one, other in zip([0, *cuts], [*cuts, len(sent)]))
    return Case("trickle", pieces)


def _garbage(rng: random.Random) -> Case:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    starts = (
        b"",
        hello,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n",
        b"\r\n" * 50,
        b"\0" * 100,
        b"SSH-2.0-x\r\n",
    )
    return Case("garbage", (rng.choice(starts) + rng.randbytes(rng.randint(0, 3000)),), whole=False)


def _odd_line(rng: random.Random) -> Case:
    version = rng.choice((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.99", b"", b"FTP/1.1"))
    line = (
        rng.choice(METHODS).encode("latin-1") + b" " + rng.choice(PATHS).encode("latin-1", "replace") + b" " + version
    )
    end = rng.choice((b"\r\n", b"\r\n", b"\n"))
    return Case("odd line", (line + end + b"Host: 127.0.0.1" + end + end,), whole=False)


def _odd_headers(rng: random.Random) -> Case:
    lines = b""
    for _ in range(rng.randint(1, 4)):
        name, value = rng.choice(NAMES), rng.choice(VALUES)
        lines += f"{name}: ".encode() + value.encode("utf-8", "replace") + b"\r\n"
    body = valid_body() if rng.random() < 0.7 else rng.randbytes(rng.choice((0, 1, 4 * CELLS, 300)))
    return Case("odd headers", (request(body, more=lines, path=rng.choice(PATHS[:3])),), whole=False)


def _odd_json(rng: random.Random) -> Case:
    body = json.loads(valid_body())
    places = [(body, "inputs"), *((body["inputs"][0], name) for name in list(body["inputs"][0])), (body, "parameters")]
    for _ in range(rng.randint(1, 3)):
        holder, name = rng.choice(places)
        how = rng.random()
        if how < 0.2:
            holder.pop(name, None)
        elif how < 0.8:
            holder[name] = rng.choice(JUNK)
        else:
            holder[rng.choice(("id", "outputs", "parameters", "image_b64", "x", ""))] = rng.choice(JUNK)
    content = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    how = rng.random()
    if how < 0.1:
        content = b"[" * rng.randint(30, 100_000)
    elif how < 0.2:
        content = content.replace(b"0.5", rng.choice((b"NaN", b"-Infinity", b"1e999", b"0x1", b"1" * 400)), 2)
    elif how < 0.35:
        content = _mutated(rng, content)
    return Case("odd json", (request(content, path=rng.choice(PATHS[:3])),))


def _odd_binary(rng: random.Random) -> Case:
    size = rng.choice((4 * CELLS, 4 * CELLS - 1, 0, 2**62, -4, 4 * CELLS * 9))
    tensor: dict[str, object] = {
        "name": "input",
        "datatype": rng.choice(("FP32", "FP16", "BYTES", "INT8")),
        "shape": [1, 1, SIZE, SIZE],
    }
    tensor["parameters"] = {"binary_data_size": rng.choice((size, str(size), None))}
    head = json.dumps({"inputs": [tensor] * rng.choice((1, 1, 2))}).encode()
    if rng.random() < 0.3:
        head = _mutated(rng, head)
    length = rng.choice((len(head), len(head), 0, len(head) + 1, 70_000, -1))
    body = head + rng.randbytes(rng.choice((4 * CELLS, 4 * CELLS, 10, 0)))
    lines = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n" % length
    sent = b"POST /infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n" % len(body) + lines + b"\r\n" + body
    return Case("odd binary", (sent,))


def _odd_npy(rng: random.Random) -> Case:
    shape = rng.choice(
        ("(1, 1, 8, 8)", "(8, 8)", "(2147483648, 2147483648)", "(-1,)", "()", "(True,)", "(1,1,8,8", "[1]")
    )
    kind = rng.choice(("<f4", "<f4", ">f4", "|O", "<U5", "<f8", "|V0", "x", ("a", "<f4")))
    text = f"{{'descr': {kind!r}, 'fortran_order': {rng.choice(('False', 'True', '0'))}, 'shape': {shape}, }}".encode()
    if rng.random() < 0.3:
        text = _mutated(rng, text)
    text += b" " * rng.choice((0, 30, 11_000)) + b"\n"
    version = rng.choice((b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"))
    said = len(text) if rng.random() < 0.8 else rng.randrange(1 << 16)
    length = said.to_bytes(2, "little") if version == b"\x01\x00" else said.to_bytes(4, "little")
    body = b"\x93NUMPY" + version + length + text + rng.randbytes(rng.choice((4 * CELLS, 0, 7)))
    sent = b"POST /infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-npy\r\nContent-Length: %d\r\n\r\n"
    return Case("odd npy", (sent % len(body) + body,))


def _flipped(rng: random.Random) -> Case:
    return Case("mutated", (_mutated(rng, request(valid_body(), more=BUDGET)),), whole=False)


MAKERS: "tuple[Callable[[random.Random], Case], ...]" = (
    _pipelined, _chunked, _both_lengths, _long_head, _early_close, _trickle, _garbage, _odd_line, _odd_headers,
    _odd_json, _odd_binary, _odd_npy, _flipped,
)  # fmt: skip


def case(seed: int, number: int) -> Case:
    """The case of a number: the same ever again."""
    return MAKERS[number % len(MAKERS)](random.Random(f"{seed}/{number}"))
