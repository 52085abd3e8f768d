"""`wenet-runtime explain`: plain sentences, a summary, and a good word for logs that are none."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, List

import pytest
from typer.testing import CliRunner

from wenet_runtime.cli import reasons
from wenet_runtime.cli.commands import app
from wenet_runtime.cli.explain import sentence
from wenet_runtime.decision import PASSED_OVER, REASONS, Decision, line_of
from wenet_runtime.service.problems import DECIDED

TIME_S = datetime(2026, 5, 4, 3, 2, 1, 250_000).timestamp()
ANSWERED = Decision(
    number=17,
    time_s=TIME_S,
    request_id="cat-1",
    rows=1,
    queued=3,
    outcome="answered",
    reason="fits",
    mode_id="m1",
    budget_ms=50.0,
    left_ms=38.0,
    limits=("budget_ms",),
    median_ms=25.0,
    bound_ms=29.9,
    measured_ms=26.0,
    attainment=0.99,
    energy_mj=120.0,
    measured_mj=131.0,
    energy_source="rail:VDD_IN",
    slowdown=1.5,
    passed_over=("m2", "too-slow", 41.2, 38.0),
)
REFUSED = Decision(
    18, TIME_S, "dog", 2, 40, "refused", "deadline-infeasible", budget_ms=5.0, left_ms=4.5,
    passed_over=("m0", "too-slow", 8.0, 5.0),
)  # fmt: skip
LATE = ANSWERED._replace(
    number=19, request_id="owl", outcome="late", reason="degraded", mode_id="m0", measured_ms=60.0, passed_over=None
)
PLAIN = Decision(20, TIME_S, "fox", 1, 0, "answered", "only-mode", "m0")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(b"".join(map(line_of, (ANSWERED, REFUSED, LATE, PLAIN))))
    return path


def shown(output: str) -> List[int]:
    """The numbers of the decisions that are told."""
    return [int(line.split(".")[0]) for line in output.splitlines() if " request " in line]


def test_an_answer_is_told_with_its_why_its_better_mode_and_its_measurement() -> None:
    assert sentence(ANSWERED) == (
        "17. 2026-05-04 03:02:01.250 request cat-1: 1 row within 50 ms, 38 ms of it left, limited by budget_ms, "
        "3 waiting; m1 answered (fits: the most accurate allowed mode that fits). "
        "m2 would have taken up to 41.2 ms, more than the 38 ms left. "
        "Predicted 25 ms, at most 29.9 ms; measured 26 ms (+4%). "
        "Energy per row: 120 mJ predicted, 131 mJ by rail:VDD_IN. The device was 1.50 times slower than profiled."
    )


def test_a_refusal_is_told_with_what_the_fastest_mode_would_have_taken() -> None:
    assert sentence(REFUSED) == (
        "18. 2026-05-04 03:02:01.250 request dog: 2 rows within 5 ms, 4.5 ms of it left, 40 waiting; "
        "refused: no allowed mode would have surely finished in time. m0 was predicted to end after 8 ms of the 5 ms."
    )


@pytest.mark.parametrize(
    ("passed", "told"),
    [
        (("m0", "too-slow", 4.9, 5.0), "m0 was predicted to end after 4.9 ms of the 5 ms, but not surely enough."),
        (("m0", "too-slow", 4.9, None), "m0 was predicted to end after 4.9 ms."),
        (("m0", "too-slow", None, 5.0), "The fastest allowed mode was m0."),
    ],
)
def test_of_a_refusal_no_more_is_told_than_is_known(passed: Any, told: str) -> None:
    assert sentence(REFUSED._replace(passed_over=passed)).endswith(told)


def test_a_refusal_for_the_sake_of_another_request_says_so() -> None:
    assert sentence(REFUSED._replace(passed_over=("m0", "no-room", 4.0, 5.0))).endswith(
        "refused: a request accepted before would have missed its deadline. "
        "m0 was predicted to end after 4 ms of the 5 ms."
    )


def test_every_code_has_its_words() -> None:
    assert set(reasons.CHOSEN) == set(REASONS)
    assert set(reasons.REFUSED) == set(DECIDED)
    for why in PASSED_OVER:
        assert why not in sentence(PLAIN._replace(passed_over=("m2", why, 1.0, 2.0)))


def test_what_is_unknown_is_not_made_up() -> None:
    assert sentence(PLAIN).endswith(
        "request fox: 1 row without a deadline, 0 waiting; m0 answered (only-mode: no other mode was allowed)."
    )


def test_a_cascade_and_a_batch_are_told() -> None:
    early = ANSWERED._replace(reason="cascade", first="m1", batch_rows=4)
    assert "m1 answered in a batch of 4 rows (cascade: it was sure enough)." in sentence(early)
    assert "m1 answered (cascade: m0 was tried first and not sure enough)." in sentence(
        early._replace(first="m0", batch_rows=1)
    )


@pytest.mark.parametrize(
    ("passed", "told"),
    [
        (("m2", "too-dear", 90.0, 70.0), "m2 would have taken 90 mJ per row, more than the 70 allowed."),
        (("m2", "over-power", 9.0, None), "m2 would have taken 9 mJ per row above idle; the power budget left an unk"),
        (("m2", "no-room", 41.0, 30.0), "m2 would have taken up to 41 ms; those who wait, or may come, left 30 ms."),
        (
            ("m2", "not-worth", 0.012, 0.05),
            "m2 is 1.2 points more accurate, and would have cost later requests 5 points.",
        ),
        (("m2", "not-worth", None, None), "is an unknown number of points more accurate"),
        (("m2", "not-resident", None, None), "m2 was not loaded."),
        (("m2", "new-word", 1.0, 2.0), "m2 was passed over (new-word: 1 against 2)."),
    ],
)
def test_every_why_has_its_words_and_a_new_one_is_told_as_it_is(passed: Any, told: str) -> None:
    assert told in sentence(PLAIN._replace(passed_over=passed))


@pytest.mark.parametrize("outcome", ["answered", "late", "expired", "refused"])
@pytest.mark.parametrize("mode_id", [None, "m1"])
def test_any_decision_has_a_sentence(outcome: str, mode_id: Any) -> None:
    for time_s in (0.0, -1e300, 1e300):
        one = Decision(0, time_s, "", 0, 0, outcome, "new-reason", mode_id, median_ms=0.0, measured_ms=1.0)
        assert "new-reason" in sentence(one)


def test_a_log_is_told_in_its_order_with_its_summary(command: Any, log: Path) -> None:
    found = command("explain", log)
    assert (found.exit_code, found.stderr) == (0, "")
    assert shown(found.stdout) == [17, 18, 19, 20]
    assert found.stdout.splitlines()[4:] == [
        "4 decisions: answered 2, late 1, refused 1",
        "reasons: deadline-infeasible 1, degraded 1, fits 1, only-mode 1",
        "modes: m0 2, m1 1",
        "passed over: too-slow 2",
        "prediction error: 4.0% (median), 140.0% (95th percentile)",
        "within the bound: 1 of 2 (50.00%); asked for: 99.00%",
    ]


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["--request", "dog"], [18]),
        (["--mode", "m0"], [19, 20]),
        (["--missed"], [18, 19]),
        (["--last", "2"], [19, 20]),
        (["--missed", "--last", "1"], [19]),
        (["--mode", "m2"], []),
    ],
)
def test_only_what_is_asked_for_is_told_and_counted(
    command: Any, log: Path, words: List[str], numbers: List[int]
) -> None:
    found = command("explain", log, *words)
    assert (found.exit_code, shown(found.stdout)) == (0, numbers)
    assert f"{len(numbers)} decisions" in found.stdout


def test_json_is_one_object_with_the_decisions_as_they_were_written(command: Any, log: Path) -> None:
    found = json.loads(command("explain", log, "--json", "--last", 1).stdout)
    assert sorted(found) == ["bad_lines", "decisions", "left_out", "summary"]
    assert found["left_out"] == 0
    assert [one["request_id"] for one in found["decisions"]] == ["fox"]
    assert json.loads(line_of(PLAIN)) == {"v": 1, **found["decisions"][0]}
    assert found["summary"]["decisions"] == 1


def test_json_of_figures_out_of_all_range_is_json(command: Any, log: Path) -> None:
    log.write_bytes(line_of(ANSWERED).replace(b":25.0,", b":1e-300,").replace(b":26.0,", b":1e300,"))
    found = command("explain", log, "--json")
    assert found.exit_code == 0
    assert json.loads(found.stdout)["summary"]["prediction_error"]["count"] == 0
    assert "Infinity" not in found.stdout
    assert command("explain", log).exit_code == 0


def test_of_a_log_of_any_length_the_latest_are_listed_and_all_summed_up(
    log: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wenet_runtime.decision_summary.KEPT", 3)
    result = command("explain", log, "--json")
    assert "only the last 3 decisions are listed; the 1 before are in the summary" in result.stderr
    found = json.loads(result.stdout)
    assert [one["number"] for one in found["decisions"]] == [18, 19, 20]
    assert (found["left_out"], found["summary"]["decisions"]) == (1, 4)
    assert command("explain", log, "--last", "4").exit_code == 2


def test_the_input_can_be_the_log(log: Path) -> None:
    found = CliRunner().invoke(app, ["explain", "-"], input=log.read_bytes())
    assert (found.exit_code, shown(found.stdout)) == (0, [17, 18, 19, 20])


def test_bad_lines_are_named_and_the_others_told(command: Any, log: Path) -> None:
    log.write_bytes(b"junk\n" + log.read_bytes() + line_of(PLAIN)[:30])  # its last line is still being written
    found = command("explain", log)
    assert (found.exit_code, shown(found.stdout)) == (0, [17, 18, 19, 20])
    assert found.stderr == f"warning: 1 lines of '{log}' are left out: line 1 is no JSON\n"


def test_an_empty_log_has_no_decisions(command: Any, log: Path) -> None:
    log.write_bytes(b"")
    found = command("explain", log)
    assert (found.exit_code, found.stdout, found.stderr) == (0, "0 decisions\n", "")


def test_a_file_that_is_no_log_exits_1(command: Any, log: Path) -> None:
    log.write_text("the quick brown fox\n" * 9)
    found = command("explain", log)
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr == f"wenet-runtime: '{log}' is no decision log: line 1 is no JSON\n"


def test_a_request_that_is_not_there_exits_1(command: Any, log: Path) -> None:
    found = command("explain", log, "--request", "cow")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "no such decision of request 'cow'" in found.stderr


@pytest.mark.parametrize("words", [["nowhere"], ["."], [], ["log", "--last", "0"], ["log", "--last", "x"]])
def test_bad_use_exits_2(command: Any, words: List[str]) -> None:
    found = command("explain", *words)
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr
    assert "Traceback" not in found.stderr


def test_a_mode_that_no_decision_names_exits_1(command: Any, log: Path) -> None:
    found = command("explain", log, "--mode", "nosuch")
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr == f"wenet-runtime: no decision in '{log}' names a mode 'nosuch'\n"


def test_a_mode_that_ran_nothing_of_what_is_asked_for_has_no_decisions(command: Any, log: Path) -> None:
    for words in (["m2"], ["m1", "--missed"]):  # m2 was only passed over
        found = command("explain", log, "--mode", *words)
        assert (found.exit_code, found.stdout) == (0, "0 decisions\n")
