"""Requests for inference do not go through the router, and are told apart as it would tell them."""

from typing import Any, Dict, Optional

import pytest
from starlette.requests import Request
from starlette.routing import Match

from tests.runtime.fakes import Client, SettableBackend, check_problem, make_service
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.app import enveloped
from wenet_runtime.service.direct import InferRequest
from wenet_runtime.service.paths import path_parameters
from wenet_runtime.service.routes_v2 import v2_routes


@pytest.mark.parametrize(
    "path",
    [
        "/infer", "/infer/", "//infer", "/v2/models/m/infer", "/v2/models/m/versions/m1/infer", "/v2/models//infer",
        "/v2/models/m/versions//infer", "/v2/models/m/version/m1/infer", "/v2/models/m/infer/", "/v2/models/infer",
        "/v2/models/m/versions/infer", "/v2/models/a/b/infer", "/V2/models/m/infer", "/v2/models/m/versions/a/b/infer",
        "/v2/models/m n/infer", "/v2/models/../infer", "/v2/models/m\n/infer", "/", "", "/v2/models/infer/infer",
        "x/v2/models/m/infer", "/v2/models/infer/versions/infer/infer",
    ],
)  # fmt: skip
def test_a_path_means_what_it_means_to_the_router(bundle: Bundle, path: str) -> None:
    scope: Dict[str, Any] = {"type": "http", "method": "POST", "path": path, "root_path": ""}
    routed: Optional[Dict[str, str]] = None
    for route in v2_routes(None)[:3]:  # type: ignore[arg-type] # it is not asked
        match, found = route.matches(scope)
        if match is Match.FULL:
            routed = found["path_params"]
            break
    assert path_parameters(path) == routed


def test_other_methods_are_refused_by_the_router(client: Client) -> None:
    for path in ("/infer", "/v2/models/test/infer"):
        response = client.get(path)
        check_problem(response, "method-not-allowed", 405)
        assert response.headers["allow"] == "POST"


def test_an_application_without_these_routes_answers_none_of_them(bundle: Bundle) -> None:
    service = make_service(bundle, SettableBackend(bundle))
    try:
        check_problem(Client(enveloped(service, [], hosts=None, tokens=None)).infer(), "not-found", 404)
    finally:
        service.runtime.close(timeout_s=5)


def test_headers_and_query_read_as_the_frameworks() -> None:
    fields = [(b"accept", b"a"), (b"accept", b"b"), (b"x", b"\xe9"), (b"content-length", b"3")]
    for query in (b"", b"top_k=3&x=%20"):
        scope = {"type": "http", "headers": fields, "query_string": query}
        ours, theirs = InferRequest(scope), Request(scope)
        for name in ("accept", "x", "content-length", "missing"):
            assert ours.headers.get(name) == theirs.headers.get(name)
            assert (name in ours.headers) == (name in theirs.headers)
        assert ours.query_params == theirs.query_params
        assert ours.query_params.get("top_k") == theirs.query_params.get("top_k")
