"""Request headers and V2 parameters → `RequestOptions`, strictly as HTTP API v1 section 2 says."""

import re
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Set

from starlette.requests import Request

from wenet_runtime.budget import Budget, RequestOptions
from wenet_runtime.bundle import Manifest
from wenet_runtime.errors import BudgetError
from wenet_runtime.meters.base import UNAVAILABLE, Meter
from wenet_runtime.service.health import meter_state
from wenet_runtime.service.problems import Problem

_DECIMAL = re.compile(r"\d{1,32}(\.\d{1,32})?|\.\d{1,32}")  # a float's own digits are 17
_INTEGER = re.compile(r"\d{1,12}")
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_GRPC = re.compile(r"(\d{1,8})([HMSmun])")
_MAX_TIMEOUT_US = 2**63 - 1
_PROXY_MS = re.compile(r"[0-9]{1,9}")
ENVOY = b"x-envoy-expected-rq-timeout-ms"
# Headers that say one thing: given twice, a proxy and this server could read different ones.
ONCE = frozenset(
    (
        b"grpc-timeout",
        ENVOY,
        b"content-type",
        b"content-encoding",
        b"content-length",
        b"inference-header-content-length",
    )
)
_GRPC_MS = {"H": 3_600_000.0, "M": 60_000.0, "S": 1_000.0, "m": 1.0, "u": 1e-3, "n": 1e-6}

# header: option's name; the V2 parameter is `wenet_` + that name
HEADERS: Mapping[str, str] = {
    "wenet-budget-ms": "budget_ms",
    "wenet-budget-mj": "budget_mj",
    "wenet-min-accuracy": "min_accuracy",
    "wenet-mode": "mode",
    "wenet-on-miss": "on_miss",
    "wenet-priority": "priority",
}
_NUMBERS = ("budget_ms", "budget_mj", "min_accuracy")


@dataclass(frozen=True)
class Defaults:
    """What the daemon was started with; a request's own options come first."""

    budget_ms: Optional[float] = None
    budget_mj: Optional[float] = None
    min_accuracy: Optional[float] = None
    mode: Optional[str] = None
    on_miss: str = "degrade"
    priority: int = 2
    trust_proxy_headers: bool = False
    require_power: bool = False
    rate_limit: Optional[float] = None


def header_options(request: Request, *, trust_proxy_headers: bool = False) -> Dict[str, Any]:
    """The options that stand in headers.

    Args:
        request: of which nothing but the headers is looked at.
        trust_proxy_headers: whether a proxy's deadline counts.

    Raises:
        Problem: bad-header, also for headers of the body that stand there twice.
    """
    found: Dict[str, Any] = {}
    once: Set[bytes] = set()
    for raw_name, raw_value in request.scope["headers"]:
        ours = raw_name.startswith(b"wenet-")
        if ours or (raw_name in ONCE and (trust_proxy_headers or raw_name != ENVOY)):
            if raw_name in once:
                raise Problem(
                    "bad-header", f"header '{_shown(raw_name.decode('latin-1'))}' is given twice: send it once"
                )
            once.add(raw_name)
        if ours:
            name = raw_name.decode("latin-1")
            option = HEADERS.get(name)
            if option is None:
                raise Problem("bad-header", f"unknown header '{_shown(name)}': known are {', '.join(HEADERS)}")
            found[option] = _header_value(name, option, raw_value)
        elif raw_name == b"grpc-timeout":
            found["grpc_ms"] = _grpc_ms(raw_value)
        elif trust_proxy_headers and raw_name == ENVOY:
            found.update(_proxy_ms(raw_value))
    return found


def path_mode(path_params: Mapping[str, str], manifest: Manifest) -> Optional[str]:
    """The mode that the path pins, which is what V2 calls a version; None if it pins none.

    Args:
        path_params: `model` and `version`, where the path has them.
        manifest: of the bundle that is served.

    Raises:
        Problem: unknown-model or unknown-mode.
    """
    model = path_params.get("model")
    if model is not None and model != manifest.model:
        raise Problem("unknown-model", f"no model '{_shown(model)}' here: this server has '{manifest.model}'")
    version = path_params.get("version")
    if version is None:
        return None
    known = [mode.id for mode in manifest.modes]
    if version not in known:
        raise Problem("unknown-mode", f"no mode '{_shown(version)}': this model has {', '.join(known)}")
    return version


def check_power(options: RequestOptions, defaults: Defaults, meter: Meter) -> None:
    """Under `--require-power` an energy budget is judged by a meter that measures, not by estimates.

    Raises:
        Problem: energy-unavailable.
    """
    if not defaults.require_power or options.budget.energy_mj is None:
        return
    state = meter_state(meter)
    if state.status == UNAVAILABLE:
        raise Problem(
            "energy-unavailable",
            "an energy budget needs a meter here (--require-power) and there is none: drop the energy budget",
        )


def _header_value(name: str, option: str, raw: bytes) -> Any:
    try:
        text = raw.decode("ascii").strip()
    except UnicodeDecodeError:
        raise Problem("bad-header", f"header '{name}' is not ASCII: send plain digits or letters") from None
    pattern = _DECIMAL if option in _NUMBERS else _INTEGER if option == "priority" else _NAME
    if not pattern.fullmatch(text):
        wanted = "a decimal number" if option in _NUMBERS else "1, 2 or 3" if option == "priority" else "a name"
        raise Problem("bad-header", f"header '{name}' is '{_shown(text)}': give {wanted}")
    return float(text) if option in _NUMBERS else int(text) if option == "priority" else text


def _grpc_ms(raw: bytes) -> float:
    match = _GRPC.fullmatch(raw.decode("latin-1"))
    if match is None:
        raise Problem("bad-header", "header 'grpc-timeout' is not 1 to 8 digits and one of H M S m u n")
    return int(match.group(1)) * _GRPC_MS[match.group(2)]


def _proxy_ms(raw: bytes) -> Dict[str, float]:
    text = raw.decode("latin-1").strip()
    if not _PROXY_MS.fullmatch(text):
        raise Problem("bad-header", f"header '{ENVOY.decode()}' is not a whole number of ms")
    return {"proxy_ms": float(text)} if int(text) else {}  # 0 is no deadline


def _shown(text: str) -> str:
    """A client's text, short and printable, for an error message."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:40])


def parameter_options(parameters: Mapping[str, Any]) -> Dict[str, Any]:
    """The options that stand in V2 `parameters`; others are ignored. Raises `Problem` malformed-request."""
    found: Dict[str, Any] = {}
    for name, value in parameters.items():
        if name.startswith("wenet_"):
            option = name[len("wenet_") :]
            if option not in HEADERS.values():
                raise Problem("malformed-request", f"unknown parameter '{_shown(name)}'")
            found[option] = _parameter_value(name, option, value)
        elif name == "timeout":
            if not _is_integer(value) or not 0 <= value <= _MAX_TIMEOUT_US:
                raise Problem("malformed-request", "parameter 'timeout' is not a possible number of microseconds")
            if value:
                found["timeout_ms"] = value / 1e3
        elif name == "priority":
            if not _is_integer(value):
                raise Problem("malformed-request", "parameter 'priority' is not a whole number")
            if value and parameters.get("wenet_priority", value) != value:
                raise Problem("conflicting-options", "parameters 'priority' and 'wenet_priority' differ")
            if value:
                found["priority"] = value
    return found


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _parameter_value(name: str, option: str, value: Any) -> Any:
    if option in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Problem("malformed-request", f"parameter '{name}' is not a number")
        try:
            return float(value)
        except OverflowError:
            raise Problem("malformed-request", f"parameter '{name}' is out of range") from None
    if option == "priority":
        if not _is_integer(value):
            raise Problem("malformed-request", f"parameter '{name}' is not a whole number")
        return value
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Problem("malformed-request", f"parameter '{name}' is not a name")
    return value


def request_options(
    headers: Mapping[str, Any],
    parameters: Mapping[str, Any],
    defaults: Defaults,
    pinned: Optional[str] = None,
) -> RequestOptions:
    """Join a request's options with the daemon's.

    Args:
        headers: what `header_options` found.
        parameters: what `parameter_options` found.
        defaults: what holds where neither says anything.
        pinned: the mode that the path pins.

    Raises:
        Problem: conflicting-options, bad-header or malformed-request.
    """
    for name in set(headers) & set(parameters):
        if headers[name] != parameters[name]:
            raise Problem("conflicting-options", f"header and parameter for '{name}' differ: send one of them")
    given = {**headers, **parameters}
    if pinned is not None and given.setdefault("mode", pinned) != pinned:
        raise Problem("conflicting-options", f"the path pins '{pinned}' and the request another mode: pin one")
    protocol = [given[name] for name in ("grpc_ms", "timeout_ms", "proxy_ms") if name in given]
    try:
        return RequestOptions(
            budget=Budget(
                latency_ms=given.get("budget_ms", defaults.budget_ms),
                energy_mj=given.get("budget_mj", defaults.budget_mj),
                min_accuracy=given.get("min_accuracy", defaults.min_accuracy),
            ),
            mode=given.get("mode", defaults.mode),
            on_miss=given.get("on_miss", defaults.on_miss),
            priority=given.get("priority", defaults.priority),
            protocol_ms=min(protocol) if protocol else None,
        )
    except BudgetError as error:
        option = str(error).split(" ", 1)[0]  # every such message begins with the option's name
        raise Problem("bad-header" if option in headers else "malformed-request", str(error)) from None
