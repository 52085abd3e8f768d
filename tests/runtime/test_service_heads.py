"""A head that comes again says what it said, and nothing of what only one request says."""

from typing import Any, List, Tuple

import pytest
from starlette.requests import Request

from tests.runtime.fakes import Client, check_problem, ones
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.heads import KEPT, Heads
from wenet_runtime.service.options import Defaults
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.v2request import Decoded

RAW = [(b"content-type", b"application/octet-stream"), (b"inference-header-content-length", b"0")]


def request(*fields: Tuple[bytes, bytes], path: str = "/infer", query: bytes = b"", parameters: Any = None) -> Request:
    scope = {"type": "http", "path": path, "query_string": query, "headers": list(fields)}
    return Request({**scope, "path_params": parameters or {}})


def test_the_same_head_is_read_once(bundle: Bundle) -> None:
    heads, defaults = Heads(), Defaults()
    first = heads.read(request(*RAW), bundle.manifest, defaults)
    assert heads.read(request(*RAW), bundle.manifest, defaults) is first
    assert first.options({}) is first.options({})
    assert first.numbers


@pytest.mark.parametrize(
    "other",
    [
        request(*RAW, (b"wenet-budget-ms", b"5")),
        request(*RAW, query=b"top_k=3"),
        request(*RAW, path="/v2/models/tiny/infer", parameters={"model": "tiny"}),
        request(*reversed(RAW)),
    ],
)
def test_another_head_is_another_one(bundle: Bundle, other: Request) -> None:
    heads, defaults = Heads(), Defaults()
    first = heads.read(request(*RAW), bundle.manifest, defaults)
    assert heads.read(other, bundle.manifest, defaults) is not first


def test_what_each_request_says_of_itself_and_what_is_secret_is_not_kept(bundle: Bundle) -> None:
    heads, defaults = Heads(), Defaults()
    names = (b"authorization", b"x-request-id", b"traceparent", b"cookie", b"proxy-authorization", b"x-api-key")
    first = heads.read(request(*RAW, *((name, b"s3cret") for name in names)), bundle.manifest, defaults)
    assert heads.read(request(*RAW), bundle.manifest, defaults) is first
    first.options({})
    first.wanted(request(*RAW), Decoded({}, raw_reply=True))
    assert not any(isinstance(one, Request) for one in vars(first).values())
    assert "s3cret" not in repr((vars(heads), vars(first)))


def test_bodies_of_other_lengths_have_the_same_head(bundle: Bundle) -> None:
    heads, defaults = Heads(), Defaults()
    first = heads.read(request(*RAW, (b"content-length", b"48")), bundle.manifest, defaults)
    assert heads.read(request(*RAW, (b"content-length", b"49")), bundle.manifest, defaults) is first
    assert heads.read(request(*RAW), bundle.manifest, defaults) is not first
    for length in (b"99999999", b"-1", b"4 8", b"1e3"):
        with pytest.raises(Problem):
            heads.read(request(*RAW, (b"content-length", length)), bundle.manifest, defaults)
    both = request(*RAW, (b"content-length", b"48"), (b"transfer-encoding", b"chunked"))
    with pytest.raises(Problem):
        heads.read(both, bundle.manifest, defaults)


def test_other_defaults_hold_at_once(bundle: Bundle) -> None:
    heads = Heads()
    for budget_ms in (5.0, 7.0):
        defaults = Defaults(budget_ms=budget_ms)
        assert heads.read(request(*RAW), bundle.manifest, defaults).options({}).budget.latency_ms == budget_ms


def test_what_the_body_says_is_not_kept(bundle: Bundle) -> None:
    head = Heads().read(request(*RAW), bundle.manifest, Defaults())
    assert head.options({"priority": 1}).priority == 1
    assert head.options({}).priority == 2
    plain, named = Decoded({}, raw_reply=True), Decoded({}, raw_reply=True, request_id="one")
    assert head.wanted(request(*RAW), plain) is head.wanted(request(*RAW), plain)
    assert head.wanted(request(*RAW), named).request_id == "one"
    assert head.wanted(request(*RAW), plain).request_id is None


def test_a_head_that_is_refused_is_refused_again(bundle: Bundle) -> None:
    heads = Heads()
    for _ in range(2):
        with pytest.raises(Problem):
            heads.read(request(*RAW, (b"wenet-budget-ms", b"soon")), bundle.manifest, Defaults())


def test_few_are_kept(bundle: Bundle) -> None:
    heads, defaults = Heads(), Defaults()
    seen: List[Any] = [
        heads.read(request(*RAW, (b"accept", b"%d" % number)), bundle.manifest, defaults) for number in range(KEPT + 1)
    ]
    assert heads.read(request(*RAW, (b"accept", b"%d" % KEPT)), bundle.manifest, defaults) is seen[-1]
    assert heads.read(request(*RAW, (b"accept", b"0")), bundle.manifest, defaults) is not seen[0]


def test_an_impossible_budget_in_a_head_is_refused_each_time_it_comes(client: Client) -> None:
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": "0",
        "WeNet-Budget-Ms": "0",
    }
    for _ in range(3):
        check_problem(client.infer(content=ones().tobytes(), headers=headers), "bad-header", 400)
