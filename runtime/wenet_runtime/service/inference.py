"""One inference request, from its headers to its reply."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from wenet_runtime.budget import Deadline, RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import DeadlineExceeded, Refused
from wenet_runtime.result import Result
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.bodies import Cut, decode, decodes_quickly, read_body
from wenet_runtime.service.decisions import Asked, Decisions
from wenet_runtime.service.metrics import Metrics
from wenet_runtime.service.options import Defaults, check_power, parameter_options
from wenet_runtime.service.problems import problem_of, problem_response, timed
from wenet_runtime.service.rate_limit import RateLimit, client_of
from wenet_runtime.service.recent import Recent
from wenet_runtime.service.replies import Reply, encode, result_fields, result_parameters
from wenet_runtime.service.serving import Serving
from wenet_runtime.service.waiting import ClientGone, answer_of

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
        limit: how often each client has asked of late.
        bundle_state: what /v2/health tells of changes of the bundle; empty where there can be none.
    """

    active: Serving
    metrics: Metrics
    defaults: Defaults
    recent: Recent = field(default_factory=Recent)
    limit: RateLimit = field(default_factory=RateLimit)
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
    except (ClientGone, Cut):
        if "wenet.dismissed" not in request.scope:  # its connection has told it why, and counted it
            service.metrics.cancelled()
        return Response(status_code=499)  # nobody reads it
    except Exception as error:  # noqa: BLE001 - every failure is counted and answered as a problem
        problem = problem_of(error)
        service.metrics.failed(problem.slug)
        service.recent.failed(problem.slug)
        asked: Optional[Asked] = request.scope.get("wenet.asked")
        serving.tally.failed(problem.slug, None if asked is None else asked.options)
        if asked is not None:
            named = asked.options.mode  # a client can write any name, and each would be counted for ever
            known = named if any(mode.id == named for mode in serving.bundle.manifest.modes) else None
            serving.statistics.failed(known, time.monotonic() - asked.deadline.start_s)
            why = error.why if isinstance(error, Refused) else Refused.why
            serving.decisions.failed(asked, problem, why, serving.runtime.queue_depth, time.monotonic())
        if problem.slug == "internal":  # the client is told its request's id, the log why
            _LOG.exception("request %s failed", request.scope["wenet.request_id"])
        # Its frames hold the body, and the error, which would hold each other until the collector comes.
        error.__traceback__ = None
        return problem_response(timed(problem, request.scope), request)
    finally:
        serving.tally.ended()


async def _answer(service: Service, serving: Serving, request: Request) -> Response:
    start_s: float = request.scope["wenet.start_s"]
    manifest = serving.bundle.manifest
    defaults = service.defaults
    if defaults.rate_limit is not None:
        service.limit.check(client_of(request.scope), defaults.rate_limit)
    head = serving.heads.read(request, manifest, defaults)
    media, length = head.media, head.length
    body = await read_body(request)
    received_s = time.monotonic()
    image_b64 = not request.path_params  # V2 has no such member
    if head.numbers or decodes_quickly(media, body, length):
        decoded = decode(media, body, length, manifest, image_b64=image_b64)
    else:
        decoded = await run_in_threadpool(decode, media, body, length, manifest, image_b64=image_b64)
    options = head.options(parameter_options(decoded.parameters))
    check_power(options, defaults, serving.runtime.meter)
    rows = next(iter(decoded.inputs.values())).shape[0]
    deadline = Deadline(start_s, options.effective_ms)
    asked = request.scope["wenet.asked"] = Asked(request.scope["wenet.request_id"], rows, options, deadline)
    wanted = head.wanted(request, decoded)
    decoded_s = time.monotonic()
    result = await answer_of(serving.runtime, request, decoded.inputs, options, start_s)

    encoding_s = now_s = time.monotonic()
    met = _met(result, options, deadline, now_s)
    while True:
        told = met
        parameters = result_parameters(result, latency_ms=(now_s - start_s) * 1e3, met=met)
        content, content_fields = encode(result, wanted, manifest, parameters)
        # The body is encoded: the headers and the verdict are those of now.
        now_s = time.monotonic()
        met = _met(result, options, deadline, now_s)
        if met == told:  # otherwise it ended while the body was encoded, which says so then
            break
    latency_ms = (now_s - start_s) * 1e3
    timing = _server_timing(start_s, received_s, decoded_s, result, encoding_s, now_s)
    fields = result_fields(result, timing, latency_ms=latency_ms, met=met)
    if _must_be_timely(options, deadline, now_s):  # an error to the client, and counted as what it was: it ran
        late = DeadlineExceeded(
            f"answered after {latency_ms:.3g} ms, the budget was {deadline.limit_ms:g} ms",
            executed=True,
            budget_ms=deadline.limit_ms,
        )
        problem = problem_of(late)
        problem.headers.update((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)
        reply = problem_response(problem, request)
        served = None
    else:
        reply = Reply(content, content_fields + fields)
        served = (decoded_s - received_s, now_s - encoding_s)
    # Counted once the reply is on its way: none of it can fail the request, and nobody waits for it.
    asyncio.get_running_loop().call_soon(_count, service, serving, _Answered(asked, result, met, now_s, served))
    return reply


class _Answered(NamedTuple):
    """An executed request, as it is counted.

    Attributes:
        met: whether its budgets held; None without any.
        now_s: when its reply was ready, monotonic.
        served: s for decoding and encoding; None if it was executed in vain.
    """

    asked: Asked
    result: Result
    met: Optional[bool]
    now_s: float
    served: Optional[Tuple[float, float]]


def _count(service: Service, serving: Serving, one: _Answered) -> None:
    asked, result, met, now_s, served = one
    total_s = now_s - asked.deadline.start_s
    latency_ms = total_s * 1e3
    if served is None:
        serving.statistics.failed(result.mode_id, total_s)
    else:
        decode_s, encode_s = served
        serving.statistics.answered(result, rows=asked.rows, decode_s=decode_s, encode_s=encode_s, total_s=total_s)
    serving.decisions.answered(asked, result, now_s)
    in_time = asked.deadline.left_ms(now_s) >= 0
    service.metrics.answered(result, latency_ms=latency_ms, rows=asked.rows, met=met, in_time=in_time)
    service.recent.answered(result, latency_ms=latency_ms, met=met)
    serving.tally.answered(met)
    serving.runtime.observe_overhead((now_s - result.finished_s) * 1e3)


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
    return (
        f"recv;dur={(received_s - start_s) * 1e3:.3f}, decode;dur={(decoded_s - received_s) * 1e3:.3f}, "
        f'queue;dur={result.queue_ms:.3f}, infer;dur={result.infer_ms:.3f};desc="batch={result.batch_rows}", '
        f"encode;dur={(now_s - encoding_s) * 1e3:.3f}, total;dur={(now_s - start_s) * 1e3:.3f}"
    )
