"""Request options: strict headers, typed parameters, one precedence."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from tests.runtime.fakes import Client, check_problem, ones, v2_body
from tests.runtime.fuzzing import examples
from wenet_runtime.budget import RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.meters.base import Meter
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.meters.sim import SimMeter
from wenet_runtime.service.daemon import open_daemon
from wenet_runtime.service.options import (
    ENVOY,
    Defaults,
    check_power,
    header_options,
    parameter_options,
    path_mode,
    request_options,
)
from wenet_runtime.service.problems import Problem
from wenet_runtime.settings import Settings


def options(
    headers: Optional[List[Tuple[bytes, bytes]]] = None,
    parameters: Optional[Dict[str, Any]] = None,
    defaults: Optional[Defaults] = None,
) -> RequestOptions:
    request = Request({"type": "http", "headers": headers or []})
    base = defaults or Defaults()
    found = header_options(request, trust_proxy_headers=base.trust_proxy_headers)
    return request_options(found, parameter_options(parameters or {}), base)


def flat(found: RequestOptions) -> Dict[str, Any]:
    """Every option by its wire name."""
    return {
        "budget_ms": found.budget.latency_ms,
        "budget_mj": found.budget.energy_mj,
        "min_accuracy": found.budget.min_accuracy,
        "mode": found.mode,
        "on_miss": found.on_miss,
        "priority": found.priority,
    }


VALUES: Dict[str, Any] = {
    "budget_ms": 12.5,
    "budget_mj": 3.0,
    "min_accuracy": 0.7,
    "mode": "m1",
    "on_miss": "late",
    "priority": 1,
}


def header_of(name: str) -> bytes:
    return f"wenet-{name.replace('_', '-')}".encode()


@pytest.mark.parametrize("name", VALUES)
def test_every_option_has_a_header_and_a_parameter_of_one_meaning(name: str) -> None:
    value = VALUES[name]
    assert flat(options([(header_of(name), str(value).encode())]))[name] == value
    assert flat(options(parameters={f"wenet_{name}": value}))[name] == value


@pytest.mark.parametrize("name", [name for name in VALUES if name != "priority"])
def test_a_request_s_own_option_wins_over_the_daemon_s(name: str) -> None:
    others = {"budget_ms": 99.0, "budget_mj": 99.0, "min_accuracy": 0.1, "mode": "m2", "on_miss": "reject"}
    defaults = Defaults(**others)
    assert flat(options(defaults=defaults))[name] == others[name]
    assert flat(options([(header_of(name), str(VALUES[name]).encode())], defaults=defaults))[name] == VALUES[name]
    assert flat(options(parameters={f"wenet_{name}": VALUES[name]}, defaults=defaults))[name] == VALUES[name]


def test_header_and_parameter_that_agree_are_one() -> None:
    found = options([(b"wenet-budget-ms", b"50.0")], {"wenet_budget_ms": 50})
    assert found.budget.latency_ms == 50.0


def refused(headers: Optional[List[Tuple[bytes, bytes]]] = None, parameters: Optional[Dict[str, Any]] = None) -> str:
    with pytest.raises(Problem) as caught:
        options(headers, parameters)
    return caught.value.slug


@pytest.mark.parametrize(
    ("header", "parameters"),
    [
        ((b"wenet-budget-ms", b"50"), {"wenet_budget_ms": 51}),
        ((b"wenet-mode", b"m1"), {"wenet_mode": "m2"}),
        ((b"wenet-priority", b"1"), {"priority": 2}),
        (None, {"priority": 1, "wenet_priority": 2}),
        (None, {"wenet_priority": 2, "priority": 1}),
    ],
)
def test_options_that_contradict_each_other_are_refused(header: Any, parameters: Dict[str, Any]) -> None:
    assert refused([header] if header else None, parameters) == "conflicting-options"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("budget-ms", "budget-mj", "min-accuracy") for value in (
            b"nan", b"NaN", b"inf", b"-inf", b"Infinity", b"+0.5", b"-0.5", b"", b" ", b"1e3", b"0x10", b"1_0", b"1,0",
            b"0.5 0.5", b"0.5ms", b"\xb2", "٣".encode(), b"1.", b"1.5.5", b"9" * 400, b"0." + b"0" * 400,
        )),
        ("budget-ms", b"0"),
        ("budget-ms", b"0.0009"),
        ("budget-ms", b"600000.01"),
        ("budget-mj", b"0"),
        ("budget-mj", b"1000001"),
        ("min-accuracy", b"1.01"),
        ("priority", b"0"),
        ("priority", b"4"),
        ("priority", b"1.0"),
        ("priority", b"-1"),
        ("priority", b"high"),
        ("on-miss", b"ignore"),
        ("on-miss", b"Degrade"),
        ("on-miss", b""),
        ("mode", b"m 1"),
        ("mode", b"m\xe9"),
        ("mode", b"../m1"),
        ("mode", b"x" * 129),
        ("modes", b"m1"),
        ("energy-mj", b"1"),
        ("", b"1"),
    ],
)  # fmt: skip
def test_a_header_that_cannot_be_meant_is_refused(name: str, value: bytes) -> None:
    assert refused([(f"wenet-{name}".encode(), value)]) == "bad-header"


@pytest.mark.parametrize("name", [*(header_of(name) for name in VALUES), b"grpc-timeout"])
def test_a_header_given_twice_is_refused_even_when_both_agree(name: bytes) -> None:
    value = b"1S" if name == b"grpc-timeout" else str(VALUES[name.decode()[6:].replace("-", "_")]).encode()
    assert refused([(name, value), (name, value)]) == "bad-header"


@pytest.mark.parametrize(
    "parameters",
    [
        {"wenet_budget_ms": "50"},
        {"wenet_budget_ms": True},
        {"wenet_budget_ms": None},
        {"wenet_budget_ms": [50]},
        {"wenet_budget_ms": 0},
        {"wenet_budget_ms": -1},
        {"wenet_budget_ms": 10**400},
        {"wenet_budget_ms": float("inf")},
        {"wenet_budget_mj": "1"},
        {"wenet_min_accuracy": 2},
        {"wenet_mode": 1},
        {"wenet_mode": "no name"},
        {"wenet_on_miss": "ignore"},
        {"wenet_priority": 1.0},
        {"wenet_priority": True},
        {"wenet_priority": 7},
        {"wenet_surprise": 1},
        {"wenet_": 1},
        {"timeout": -1},
        {"timeout": 1.5},
        {"timeout": "1"},
        {"timeout": 10**400},
        {"priority": "1"},
        {"priority": 9},
        {"priority": -1},
    ],
)
def test_a_parameter_that_cannot_be_meant_is_malformed(parameters: Dict[str, Any]) -> None:
    assert refused(parameters=parameters) == "malformed-request"


def test_parameters_of_others_are_ignored() -> None:
    found = options(parameters={"sequence_id": "x", "binary_data_output": False, "priority": 0, "timeout": 0})
    assert flat(found) == flat(RequestOptions())
    assert found.protocol_ms is None


def test_the_protocol_s_priority_is_an_alias() -> None:
    assert options(parameters={"priority": 1}).priority == 1
    assert options(parameters={"priority": 1, "wenet_priority": 1}).priority == 1


@pytest.mark.parametrize(
    ("value", "wanted_ms"),
    [
        (b"1H", 3.6e6),
        (b"2M", 1.2e5),
        (b"3S", 3e3),
        (b"4m", 4.0),
        (b"5u", 5e-3),
        (b"6n", 6e-6),
        (b"99999999m", 99999999),
    ],
)
def test_a_grpc_timeout_is_a_deadline(value: bytes, wanted_ms: float) -> None:
    assert options([(b"grpc-timeout", value)]).protocol_ms == pytest.approx(wanted_ms)


@pytest.mark.parametrize("value", [b"", b"5", b"m", b"5s", b"5h", b"123456789m", b"-5m", b"5.5m", b"\xb2m", b"5mm"])
def test_a_grpc_timeout_of_another_form_is_refused(value: bytes) -> None:
    assert refused([(b"grpc-timeout", value)]) == "bad-header"


def test_deadlines_never_loosen() -> None:
    found = options([(b"grpc-timeout", b"40m"), (b"wenet-budget-ms", b"50")], {"timeout": 30_000})
    assert (found.budget.latency_ms, found.protocol_ms, found.effective_ms) == (50.0, 30.0, 30.0)
    assert options([(b"grpc-timeout", b"60m"), (b"wenet-budget-ms", b"50")]).effective_ms == 50.0


TRUSTING = Defaults(trust_proxy_headers=True)


def test_a_proxy_s_deadline_is_ignored_unless_trusted() -> None:
    assert options([(ENVOY, b"1")]).effective_ms is None
    assert options([(ENVOY, b"nonsense")]).effective_ms is None
    found = options([(ENVOY, b"250"), (b"wenet-budget-ms", b"500"), (b"grpc-timeout", b"1S")], defaults=TRUSTING)
    assert (found.protocol_ms, found.effective_ms) == (250.0, 250.0)
    assert options([(ENVOY, b"0"), (b"grpc-timeout", b"1S")], defaults=TRUSTING).protocol_ms == 1000.0
    assert options([(ENVOY, b"0")], defaults=TRUSTING).protocol_ms is None


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"1e3", b"9" * 10, "²".encode("latin-1"), b"nan"])
def test_a_trusted_deadline_of_another_form_is_refused(value: bytes) -> None:
    with pytest.raises(Problem) as caught:
        options([(ENVOY, value)], defaults=TRUSTING)
    assert caught.value.slug == "bad-header"


@pytest.mark.parametrize(
    "name",
    [
        b"grpc-timeout",
        b"content-type",
        b"content-encoding",
        b"content-length",
        b"inference-header-content-length",
    ],
)
def test_what_two_could_read_differently_may_stand_there_once(name: bytes) -> None:
    with pytest.raises(Problem, match="twice") as caught:
        options([(name, b"1m"), (name, b"1m")])
    assert caught.value.slug == "bad-header"


def test_a_proxy_s_deadline_stands_there_once_where_it_counts() -> None:
    twice = [(ENVOY, b"5"), (ENVOY, b"6")]
    with pytest.raises(Problem, match="twice"):
        options(twice, defaults=TRUSTING)
    assert options(twice).protocol_ms is None


@pytest.mark.parametrize("value", [100 / 3, 50 / 3, 0.9246861924686193 * 7, 1e-3 / 3 + 1e-3])
def test_a_number_may_have_all_digits_of_its_own(value: float) -> None:
    assert options([(b"wenet-budget-ms", repr(value).encode())]).budget.latency_ms == value


def test_the_path_pins_what_the_request_does_not(bundle: Bundle) -> None:
    assert request_options({}, {}, Defaults(mode="m2"), "m0").mode == "m0"
    assert request_options({"mode": "m0"}, {}, Defaults(), "m0").mode == "m0"
    for headers, parameters in (({"mode": "m1"}, {}), ({}, {"mode": "m1"})):
        with pytest.raises(Problem, match="pins 'm0'") as caught:
            request_options(headers, parameters, Defaults(), "m0")
        assert caught.value.slug == "conflicting-options"
    assert path_mode({}, bundle.manifest) is None
    assert path_mode({"model": "tiny"}, bundle.manifest) is None
    assert path_mode({"model": "tiny", "version": "m1"}, bundle.manifest) == "m1"


@pytest.mark.parametrize(
    ("required", "meter", "refused"), [(True, NoMeter(), True), (True, SimMeter(), False), (False, NoMeter(), False)]
)
def test_where_power_is_required_estimates_do_not_do(required: bool, meter: Meter, refused: bool) -> None:
    defaults = Defaults(require_power=required)
    check_power(options(), defaults, meter)  # without an energy budget nothing is required
    budget = options([(b"wenet-budget-mj", b"5")])
    if not refused:
        check_power(budget, defaults, meter)
        return
    with pytest.raises(Problem, match="--require-power") as caught:
        check_power(budget, defaults, meter)
    assert caught.value.slug == "energy-unavailable"


NAMES = st.sampled_from([header_of(name) for name in VALUES] + [ENVOY, b"grpc-timeout", b"wenet-x", b"accept"])
NUMBERS = st.floats().map(str) | st.integers().map(str) | st.from_regex(r"[0-9.]{0,14}[HMSmun]?", fullmatch=True)
TEXTS = st.binary(max_size=20) | NUMBERS.map(lambda text: text.encode("utf-8", "replace"))


@examples()
@given(st.lists(st.tuples(NAMES | st.binary(max_size=12), TEXTS), max_size=4))
def test_no_headers_are_more_than_refused(headers: List[Tuple[bytes, bytes]]) -> None:
    try:
        found = options(headers, defaults=TRUSTING)
    except Problem as problem:
        assert problem.slug == "bad-header"  # noqa: PT017 - valid values are drawn, too
        return
    for limit in (found.budget.latency_ms, found.budget.energy_mj, found.protocol_ms):
        assert limit is None or 0 <= limit < float("inf")
    assert found.priority in (1, 2, 3)


@examples()
@given(
    st.dictionaries(
        st.sampled_from([f"wenet_{name}" for name in VALUES] + ["timeout", "priority", "wenet_x", "other"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=6)
        | st.lists(st.integers(), max_size=2),
        max_size=4,
    )
)
def test_no_parameters_are_more_than_refused(parameters: Dict[str, Any]) -> None:
    try:
        found = options(parameters=parameters)
    except Problem as problem:
        assert problem.slug in ("malformed-request", "conflicting-options")  # noqa: PT017 - as above
        return
    for limit in (found.budget.latency_ms, found.budget.energy_mj, found.protocol_ms):
        assert limit is None or 0 <= limit < float("inf")


def test_over_http_the_slugs_have_their_statuses(client: Client) -> None:
    check_problem(client.infer(headers={"WeNet-Budget-Ms": "nan"}), "bad-header", 400)
    check_problem(client.infer(headers={"WeNet-Bugdet-Ms": "5"}), "bad-header", 400)
    twice = [("WeNet-Budget-Ms", "5"), ("wenet-budget-ms", "5")]
    check_problem(client.infer(headers=twice), "bad-header", 400)
    check_problem(client.infer(headers={b"WeNet-Mode": b"m\xe9"}), "bad-header", 400)
    body = v2_body(ones(), parameters={"wenet_budget_ms": 100})
    check_problem(client.infer(json=body, headers={"WeNet-Budget-Ms": "50"}), "conflicting-options", 422)
    check_problem(client.infer(json=v2_body(ones(), parameters={"wenet_x": 1})), "malformed-request", 400)
    check_problem(client.infer(headers={"WeNet-Mode": "m9"}), "unknown-mode", 404)
    assert client.infer().status_code == 200


def test_the_daemon_s_flags_reach_its_requests(bundle_path: Path, cache_path: Path) -> None:
    flags: Dict[str, Any] = {"trust_proxy_headers": True, "require_power": True, "meter": "none"}
    daemon = open_daemon(Settings(bundle=bundle_path, cache_dir=cache_path, profile_rounds=10, **flags))
    client = Client(daemon.app)
    check_problem(client.infer(headers={"x-envoy-expected-rq-timeout-ms": "x"}), "bad-header", 400)
    refused = check_problem(client.infer(headers={"WeNet-Budget-Mj": "5"}), "energy-unavailable", 422)
    assert "--require-power" in refused["detail"]
    assert daemon.close(timeout_s=10)
