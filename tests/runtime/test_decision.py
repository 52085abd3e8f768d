"""A decision survives its line of JSON, and a line that is no decision is refused with its reason."""

import contextlib
import json
import math
import random
from typing import Any, Optional

import pytest

from wenet_runtime.decision import OUTCOMES, Decision, Passed, decision_of, line_of, members_of

PLAIN = Decision(1, 2.5, "r", 1, 0, "answered", "fits")


def some(chance: random.Random) -> Decision:
    """A random decision; of times and energies four digits survive."""

    def maybe() -> Optional[float]:
        return round(chance.uniform(-10, 1e4), 4) if chance.random() < 0.7 else None

    passed = Passed("m1", chance.choice(["too-slow", "new-word"]), maybe(), maybe()) if chance.random() < 0.7 else None
    return Decision(
        number=chance.randrange(10**9),
        time_s=round(chance.uniform(0, 2e9), 4),
        request_id="".join(chance.choices("aZ09._:-", k=chance.randrange(128))),
        rows=chance.randrange(1, 99),
        queued=chance.randrange(99),
        outcome=chance.choice(OUTCOMES),
        reason=chance.choice(["fits", "degraded", "deadline-infeasible"]),
        mode_id=chance.choice([None, "m0", 'wüst "mode"']),
        limits=tuple(chance.sample(["budget_ms", "power_w", "energy_wh"], chance.randrange(4))),
        energy_source=chance.choice(["none", "rail:VDD_IN"]),
        passed_over=passed,
        first=chance.choice([None, "m0"]),
        batch_rows=chance.choice([None, 4]),
        **{name: maybe() for name in FIGURES},
    )


FIGURES = [
    "budget_ms", "left_ms", "median_ms", "bound_ms", "measured_ms", "attainment", "energy_mj", "measured_mj",
    "slowdown", "cap_mj",
]  # fmt: skip


def test_a_line_gives_back_the_decision_that_was_written() -> None:
    chance = random.Random(1)
    for _ in range(300):
        decision = some(chance)
        line = line_of(decision)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert decision_of(line) == decision


def test_what_is_not_finite_is_unknown() -> None:
    found = decision_of(
        line_of(PLAIN._replace(left_ms=math.inf, cap_mj=math.nan, passed_over=("m1", "x", math.nan, 1)))
    )
    assert (found.left_ms, found.cap_mj, found.passed_over) == (None, None, ("m1", "x", None, 1.0))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_everything_but_an_answer_in_time_is_missed(outcome: str) -> None:
    assert PLAIN._replace(outcome=outcome).missed == (outcome != "answered")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", -1), ("number", 1.0), ("number", True), ("time_s", "now"), ("time_s", None), ("rows", None),
        ("outcome", "lost"), ("outcome", ["answered"]), ("reason", 3), ("reason", "\x1b[2J"), ("reason", "x" * 257),
        ("request_id", "a\nb"), ("request_id", "\u202e"), ("mode_id", {}), ("left_ms", "1"), ("left_ms", True),
        ("left_ms", 10**400), ("limits", "budget_ms"), ("limits", [1]), ("passed_over", ["m1", "too-slow"]),
        ("passed_over", ["m1", "too-slow", "1", None]), ("passed_over", {}), ("energy_source", None),
    ],
)  # fmt: skip
def test_a_member_of_another_kind_is_refused_by_its_name(name: str, value: Any) -> None:
    members = {"v": 1, **members_of(PLAIN), name: value}
    with pytest.raises(ValueError, match=f"has the impossible {name} "):
        decision_of(json.dumps(members).encode())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"v":2}', "has version 2, and 1 can be read here"),
        (b"{}", "has version None"),
        (b'{"v":1}', "has no 'number'"),
        (b'{"v":1,"extra":1}', "has an unknown member 'extra'"),
        (b"[" * 60000, "is nested too deep|is no JSON"),
        (line_of(PLAIN).replace(b"2.5", b"NaN"), "no JSON"),
        (line_of(PLAIN).replace(b"2.5", b"1e999"), "impossible time_s"),
        (line_of(PLAIN)[:-20], "no JSON"),
    ],
)
def test_a_line_that_is_no_decision_says_why(line: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decision_of(line)


def test_nothing_but_a_reason_comes_of_damaged_lines() -> None:
    chance = random.Random(2)
    for _ in range(2000):
        line = bytearray(line_of(some(chance)))
        for _ in range(chance.randrange(1, 4)):
            line[chance.randrange(len(line))] = chance.randrange(256)
        with contextlib.suppress(ValueError):
            assert isinstance(decision_of(bytes(line)), Decision)
