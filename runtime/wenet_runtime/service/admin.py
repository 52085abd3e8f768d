"""/admin: what holds for requests that bring no options, which bundle is served, the end. A token is always needed.

The envelope asks for the token; what is here is for whoever has one.
"""

import dataclasses
import json
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wenet_runtime.budget import Budget, RequestOptions
from wenet_runtime.errors import BudgetError
from wenet_runtime.service.bodies import JSON, check_length, media_type, read_body
from wenet_runtime.service.deciding import check_feasible
from wenet_runtime.service.encoding import json_bytes, json_response
from wenet_runtime.service.inference import Service
from wenet_runtime.service.options import Defaults
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.swap import Bundles
from wenet_runtime.service.v2json import parse_json

MAX_BODY = 64 << 10
POLICY = ("budget_ms", "budget_mj", "min_accuracy", "mode", "on_miss")
NUMBERS = ("budget_ms", "budget_mj", "min_accuracy")


def admin_routes(service: Service, bundles: Bundles) -> List[Route]:
    """The routes.

    Args:
        service: whose policy is read and replaced.
        bundles: changes what is served, and ends it.
    """

    async def policy(request: Request) -> Response:
        if request.method != "PUT":
            return json_response(policy_members(service.defaults))
        members = await _members(request, POLICY)
        wanted = policy_from(members, service.defaults)
        bundles.check_unchanging()  # what is about to be served has been held against the policy as it is
        runtime = service.runtime
        check_feasible(runtime.controller, wanted, runtime.pool.residency.out, runtime.meter)
        service.defaults = wanted
        return json_response(policy_members(wanted))

    async def bundle(request: Request) -> Response:
        path = (await _members(request, ("path",)))["path"]
        if not isinstance(path, str):
            raise Problem("malformed-request", "'path' is no string: name a bundle's directory")
        return _changed(await bundles.swap(path))

    async def rollback(request: Request) -> Response:
        await _members(request, ())
        return _changed(await bundles.rollback())

    async def recalibrate(request: Request) -> Response:
        await _members(request, ())
        bundles.recalibrate()
        return _accepted({"recalibrating": True})

    async def drain(request: Request) -> Response:
        await _members(request, ())
        bundles.end()
        return _accepted({"draining": True})

    return [
        Route("/admin/policy", policy, methods=["GET", "PUT"]),
        Route("/admin/bundle", bundle, methods=["POST"]),
        Route("/admin/rollback", rollback, methods=["POST"]),
        Route("/admin/recalibrate", recalibrate, methods=["POST"]),
        Route("/admin/drain", drain, methods=["POST"]),
    ]


def policy_members(policy: Defaults) -> Dict[str, Any]:
    """A policy as JSON."""
    return {name: getattr(policy, name) for name in POLICY}


def policy_from(members: Mapping[str, Any], before: Defaults) -> Defaults:
    """A policy from JSON, each value in the range of its setting.

    Args:
        members: all of `POLICY`.
        before: keeps what is no part of it.

    Raises:
        Problem: malformed-request.
    """
    for name in NUMBERS:
        value = members[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise Problem("malformed-request", f"'{name}' is neither a number nor null")
    if members["mode"] is not None and not isinstance(members["mode"], str):
        raise Problem("malformed-request", "'mode' is neither a mode's id nor null")
    if not isinstance(members["on_miss"], str):
        raise Problem("malformed-request", "'on_miss' is no string: give degrade, reject or late")
    try:
        budget_ms, budget_mj, min_accuracy = (
            None if members[name] is None else float(members[name]) for name in NUMBERS
        )
        RequestOptions(Budget(budget_ms, budget_mj, min_accuracy), members["mode"], members["on_miss"])
    except (BudgetError, OverflowError) as error:
        raise Problem("malformed-request", str(error)) from None
    return dataclasses.replace(
        before,
        budget_ms=budget_ms,
        budget_mj=budget_mj,
        min_accuracy=min_accuracy,
        mode=members["mode"],
        on_miss=members["on_miss"],
    )


async def _members(request: Request, names: Sequence[str]) -> Dict[str, Any]:
    """The members of a JSON object: these and no others. Raises `Problem`."""
    media = media_type(request)
    check_length(request)
    body = await read_body(request)
    if len(body) > MAX_BODY:
        raise Problem("too-large", f"the body is larger than {MAX_BODY} bytes")
    if not body and not names:
        return {}
    if media != JSON:
        raise Problem("unsupported-media", f"send {JSON}")
    members = parse_json(body)
    json.loads(body, object_pairs_hook=_each_once)
    wanted = ", ".join(names) or "none"
    if not isinstance(members, dict):
        raise Problem("malformed-request", f"the body is no JSON object; its members are: {wanted}")
    for name in members:
        if name not in names:
            raise Problem("malformed-request", f"unknown member '{_shown(name)}': known are {wanted}")
    for name in names:
        if name not in members:
            raise Problem("malformed-request", f"member '{name}' is missing: the object is given as a whole, {wanted}")
    return members


def _each_once(members: List[Tuple[str, Any]]) -> None:
    """Raises `Problem` malformed-request for an object that says two things."""
    if len(dict(members)) < len(members):
        raise Problem("malformed-request", "a member is given twice")


def _shown(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name[:40])


def _changed(sums: Tuple[str, str]) -> Response:
    return json_response({"bundle_sha256": sums[0], "previous_sha256": sums[1]})


def _accepted(members: Mapping[str, Any]) -> Response:
    return Response(json_bytes(members), 202, media_type=JSON)
