"""The OpenAPI document: complete, consistent, and without anything of the bundle."""

import json
import re
from typing import Any, Dict, Iterator, Set, Tuple

from starlette.applications import Starlette

from tests.runtime.fakes import Client
from wenet_runtime.service.openapi import openapi, openapi_json
from wenet_runtime.service.options import HEADERS
from wenet_runtime.service.problems import PROBLEMS

STATUSES = {str(status) for status, _ in PROBLEMS.values()}


def operations() -> Iterator[Tuple[str, str, Dict[str, Any]]]:
    for path, item in openapi()["paths"].items():
        for verb, operation in item.items():
            yield path, verb, operation


def routes(client: Client) -> Set[Tuple[str, str]]:
    """Every (path, verb) of the application but the pages and what is asked of an administrator."""
    app: Any = client.app
    while not isinstance(app, Starlette):  # what stands around it
        app = app._app
    return {
        (route.path, method.lower())
        for route in app.routes
        if getattr(route, "include_in_schema", False)
        for method in route.methods - {"HEAD"}
    }


def described(*, admin: bool) -> Set[Tuple[str, str]]:
    return {(path, verb) for path, verb, _ in operations() if path.startswith("/admin") == admin}


def test_it_describes_every_route_and_nothing_else(held_client: Client, client: Client) -> None:
    assert routes(held_client) == described(admin=False)
    whole = routes(client)  # as the daemon builds it
    assert whole - described(admin=False) <= described(admin=True)


def test_every_operation_lists_every_status() -> None:
    for path, verb, operation in operations():
        found = set(operation["responses"])
        assert found >= STATUSES, (path, verb)
        assert len(found - STATUSES) == 1, (path, verb)


def test_every_slug_stands_at_its_status() -> None:
    responses = openapi()["paths"]["/infer"]["post"]["responses"]
    for slug, (status, _) in PROBLEMS.items():
        assert slug in responses[str(status)]["description"].split(", ")


def test_every_reference_leads_somewhere() -> None:
    text = openapi_json().decode()
    known = openapi()["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) == set(known)


def test_a_path_s_parts_are_its_parameters() -> None:
    for path, verb, operation in operations():
        wanted = set(re.findall(r"{(\w+)}", path))
        given = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert wanted == given, (path, verb)
        assert all(one["required"] == (one["in"] == "path") for one in operation["parameters"])


def test_the_options_are_those_that_are_read() -> None:
    given = {one["name"].lower() for one in openapi()["paths"]["/infer"]["post"]["parameters"]}
    assert set(HEADERS) <= given


def test_it_is_served_as_it_is_and_composed_once(client: Client) -> None:
    response = client.get("/openapi.json")
    assert response.content == openapi_json()
    assert json.loads(response.content)["openapi"] == "3.1.0"
    assert openapi_json() is openapi_json()


def test_it_holds_nothing_of_the_bundle(client: Client) -> None:
    text = client.get("/openapi.json").text
    assert "tiny" not in text
    assert '"m2"' not in text
