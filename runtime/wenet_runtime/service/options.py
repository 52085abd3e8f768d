"""Request headers and V2 parameters → `RequestOptions`, strictly as HTTP API v1 section 2 says."""

import re
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

from starlette.requests import Request

from wenet_runtime.budget import Budget, RequestOptions
from wenet_runtime.errors import BudgetError
from wenet_runtime.service.problems import Problem

_DECIMAL = re.compile(r"\d{1,12}(\.\d{1,12})?|\.\d{1,12}")
_INTEGER = re.compile(r"\d{1,12}")
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_GRPC = re.compile(r"(\d{1,8})([HMSmun])")
_MAX_TIMEOUT_US = 2**63 - 1
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


def header_options(request: Request) -> Dict[str, Any]:
    """The options that stand in headers. Raises `Problem` bad-header."""
    found: Dict[str, Any] = {}
    for raw_name, raw_value in request.scope["headers"]:
        if raw_name == b"grpc-timeout":
            if "grpc_ms" in found:
                raise Problem("bad-header", "header 'grpc-timeout' is given twice: send it once")
            found["grpc_ms"] = _grpc_ms(raw_value)
            continue
        if not raw_name.startswith(b"wenet-"):
            continue
        name = raw_name.decode("latin-1")
        option = HEADERS.get(name)
        if option is None:
            raise Problem("bad-header", f"unknown header '{_shown(name)}': known are {', '.join(HEADERS)}")
        if option in found:
            raise Problem("bad-header", f"header '{name}' is given twice: send it once")
        found[option] = _header_value(name, option, raw_value)
    return found


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


def request_options(headers: Mapping[str, Any], parameters: Mapping[str, Any], defaults: Defaults) -> RequestOptions:
    """Join a request's options with the daemon's.

    Raises:
        Problem: conflicting-options, bad-header or malformed-request.
    """
    for name in set(headers) & set(parameters):
        if headers[name] != parameters[name]:
            raise Problem("conflicting-options", f"header and parameter for '{name}' differ: send one of them")
    given = {**headers, **parameters}
    protocol = [given[name] for name in ("grpc_ms", "timeout_ms") if name in given]
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
