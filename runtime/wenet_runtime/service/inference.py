"""One inference request, from its headers to its reply."""

import asyncio
import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from wenet_runtime.budget import Deadline, RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import DeadlineExceeded, Refused
from wenet_runtime.result import Result
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.bodies import decode, decodes_quickly, media_type, read_body
from wenet_runtime.service.decisions import Asked, Decisions
from wenet_runtime.service.metrics import Metrics
from wenet_runtime.service.options import (
    Defaults,
    check_power,
    header_options,
    parameter_options,
    path_mode,
    request_options,
)
from wenet_runtime.service.problems import Problem, problem_of, problem_response
from wenet_runtime.service.recent import Recent
from wenet_runtime.service.replies import encode, response, result_headers, result_parameters, wanted_reply
from wenet_runtime.service.serving import Serving

# Most answers come sooner than this; only a request that waits longer is watched for its client leaving.
WATCH_AFTER_S = 0.02

_LOG = logging.getLogger(__name__)


@dataclass
class Service:
    """What the routes work with.

    Attributes:
        active: what new requests are served from. A swap replaces it; who needs more than one thing of it, or needs
            it across an `await`, reads it once.
        metrics: counts what happens to requests.
        defaults: what holds for requests that bring no options of their own.
        recent: what happened in the last minute.
        bundle_state: what /v2/health tells of changes of the bundle; empty where there can be none.
    """

    active: Serving
    metrics: Metrics
    defaults: Defaults
    recent: Recent = field(default_factory=Recent)
    bundle_state: Callable[[], Dict[str, Any]] = dict

    @property
    def bundle(self) -> Bundle:
        """The active one."""
        return self.active.bundle

    @property
    def runtime(self) -> Runtime:
        """The active one."""
        return self.active.runtime

    @property
    def decisions(self) -> Decisions:
        """The active ones."""
        return self.active.decisions


async def infer(service: Service, request: Request) -> Response:
    """One request: headers → options, body → tensors, runtime → result, result → body and headers."""
    serving = service.active
    serving.tally.begun()
    try:
        return await _answer(service, serving, request)
    except ClientGone:
        service.metrics.cancelled()
        return Response(status_code=499)  # nobody reads it
    except Exception as error:  # noqa: BLE001 - every failure is counted and answered as a problem
        problem = problem_of(error)
        service.metrics.failed(problem.slug)
        service.recent.failed(problem.slug)
        asked: Optional[Asked] = request.scope.get("wenet.asked")
        serving.tally.failed(problem.slug, None if asked is None else asked.options)
        if asked is not None:
            serving.statistics.failed(asked.options.mode, time.monotonic() - asked.deadline.start_s)
            why = error.why if isinstance(error, Refused) else Refused.why
            serving.decisions.failed(asked, problem, why, serving.runtime.queue_depth, time.monotonic())
        if problem.slug == "internal":  # the client is told its request's id, the log why
            _LOG.exception("request %s failed", request.scope["wenet.request_id"])
        return _problem_response(problem, request)
    finally:
        serving.tally.ended()


def _problem_response(problem: Problem, request: Request) -> Response:
    latency_ms = (time.monotonic() - request.scope["wenet.start_s"]) * 1e3
    problem.headers["WeNet-Latency-Ms"] = f"{latency_ms:.3f}"
    problem.headers["Server-Timing"] = f"total;dur={latency_ms:.3f}"
    return problem_response(problem, request)


async def _answer(service: Service, serving: Serving, request: Request) -> Response:
    start_s: float = request.scope["wenet.start_s"]
    manifest = serving.bundle.manifest
    defaults = service.defaults
    pinned = path_mode(request.path_params, manifest)
    headers = header_options(request, trust_proxy_headers=defaults.trust_proxy_headers)
    media = media_type(request)
    body = await read_body(request)
    received_s = time.monotonic()
    length = request.headers.get("inference-header-content-length")
    image_b64 = not request.path_params  # V2 has no such member
    if decodes_quickly(media, body, length):
        decoded = decode(media, body, length, manifest, image_b64=image_b64)
    else:
        decoded = await run_in_threadpool(decode, media, body, length, manifest, image_b64=image_b64)
    options = request_options(headers, parameter_options(decoded.parameters), defaults, pinned)
    check_power(options, defaults, serving.runtime.meter)
    rows = next(iter(decoded.inputs.values())).shape[0]
    deadline = Deadline(start_s, options.effective_ms)
    asked = request.scope["wenet.asked"] = Asked(request.scope["wenet.request_id"], rows, options, deadline)
    wanted = wanted_reply(request, manifest, decoded)
    decoded_s = time.monotonic()
    result = await _run(serving.runtime, request, decoded.inputs, options, start_s)

    met = _met(result, options, deadline, time.monotonic())
    latency_ms = (time.monotonic() - start_s) * 1e3
    parameters = result_parameters(result, latency_ms=latency_ms, met=met)
    encoding_s = time.monotonic()
    content, content_headers = encode(result, wanted, manifest, parameters)
    # The body is encoded: the headers and the verdict are those of now.
    now_s = time.monotonic()
    latency_ms = (now_s - start_s) * 1e3
    serving.runtime.observe_overhead((now_s - result.finished_s) * 1e3)
    met = _met(result, options, deadline, now_s)
    if _must_be_timely(options, deadline, now_s):  # an error to the client, and counted as what it was: it ran
        late = DeadlineExceeded(
            f"answered after {latency_ms:.3g} ms, the budget was {deadline.limit_ms:g} ms",
            executed=True,
            budget_ms=deadline.limit_ms,
        )
        reply = _problem_response(problem_of(late), request)
        serving.statistics.failed(result.mode_id, now_s - start_s)
    else:
        parameters = result_parameters(result, latency_ms=latency_ms, met=met)
        timing = _server_timing(start_s, received_s, decoded_s, result, encoding_s, now_s)
        reply = response(content, {**content_headers, **result_headers(parameters, timing)})
        serving.statistics.answered(
            result, rows=rows, decode_s=decoded_s - received_s, encode_s=now_s - encoding_s, total_s=now_s - start_s
        )
    # Last, so that nothing that is counted here can still fail and be counted again.
    serving.decisions.answered(asked, result, now_s)
    in_time = deadline.left_ms(now_s) >= 0
    service.metrics.answered(result, latency_ms=latency_ms, rows=rows, met=met, in_time=in_time)
    service.recent.answered(result, latency_ms=latency_ms, met=met)
    serving.tally.answered(met)
    return reply


def _met(result: Result, options: RequestOptions, deadline: Deadline, now_s: float) -> Optional[bool]:
    """Whether the budgets held; None when there were none."""
    in_time = deadline.left_ms(now_s) >= 0
    budget_mj = options.budget.energy_mj
    if budget_mj is not None and result.energy_mj is not None:
        return in_time and result.energy_mj <= budget_mj
    return None if deadline.limit_ms is None else in_time


def _must_be_timely(options: RequestOptions, deadline: Deadline, now_s: float) -> bool:
    """Whether a late answer is an error: under `reject`, or when a protocol's deadline has passed."""
    if deadline.left_ms(now_s) >= 0:
        return False
    return options.on_miss == "reject" or options.protocol_ended(deadline.elapsed_ms(now_s))


def _server_timing(
    start_s: float, received_s: float, decoded_s: float, result: Result, encoding_s: float, now_s: float
) -> str:
    parts = (
        ("recv", received_s - start_s, ""),
        ("decode", decoded_s - received_s, ""),
        ("queue", result.queue_ms / 1e3, ""),
        ("infer", result.infer_ms / 1e3, f';desc="batch={result.batch_rows}"'),
        ("encode", now_s - encoding_s, ""),
        ("total", now_s - start_s, ""),
    )
    return ", ".join(f"{name};dur={seconds * 1e3:.3f}{more}" for name, seconds, more in parts)


class ClientGone(Exception):
    """The client closed the connection while its request waited."""


async def _run(
    runtime: Runtime, request: Request, inputs: Dict[str, Any], options: RequestOptions, start_s: float
) -> Result:
    """Submit and wait: to the result, the deadline, or the client's leaving."""
    work = runtime.submit(inputs, options, start_s, request.client.host if request.client else "")
    answer = asyncio.wrap_future(work)
    limit_ms = options.protocol_ms if options.on_miss == "late" else options.effective_ms
    deadline = Deadline(start_s, limit_ms)
    left_s = max(0.0, deadline.left_ms(time.monotonic()) / 1e3)
    await asyncio.wait({answer}, timeout=min(left_s, WATCH_AFTER_S))
    gone = not answer.done() and await _client_left(request, answer, deadline)
    if answer.done():
        return answer.result()
    # Expired or left alone: what still waits is taken out and never runs, what runs is waited for.
    if work.cancel():
        answer.cancel()
        if gone:
            raise ClientGone
        raise DeadlineExceeded(
            f"the budget of {deadline.limit_ms:g} ms ended while the request waited",
            executed=False,
            budget_ms=deadline.limit_ms,
        )
    return await answer


async def _client_left(request: Request, answer: "asyncio.Future[Result]", deadline: Deadline) -> bool:
    """Wait for the answer, the deadline or a disconnect, whichever comes first; True for a disconnect."""
    gone = asyncio.ensure_future(_disconnected(request))
    first: set[asyncio.Future[Any]] = {answer, gone}
    left_ms = deadline.left_ms(time.monotonic())
    try:
        await asyncio.wait(
            first,
            timeout=None if math.isinf(left_ms) else max(0.0, left_ms / 1e3),
            return_when=asyncio.FIRST_COMPLETED,
        )
        return gone.done()
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
