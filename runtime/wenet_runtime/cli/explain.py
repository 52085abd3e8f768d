"""The verb `explain`: why each request of a decision log got the mode it got, and how good the predictions were."""

import json
import sys
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Deque, Dict, Iterable, Optional, Set

import typer

from wenet_runtime.cli.ends import EXIT_FAILURE, fail, guarded, say
from wenet_runtime.cli.reasons import CHOSEN, REFUSED
from wenet_runtime.errors import SettingsError

if TYPE_CHECKING:  # the help needs none of these
    from wenet_runtime.decision import Decision, Passed
    from wenet_runtime.decision_file import Reading

_NO_ROOM = "a request accepted before would have missed its deadline"


def explain(
    log: str = typer.Argument(..., help="decision log; - reads it from the input", metavar="LOG"),
    request: Optional[str] = typer.Option(None, "--request", help="only this request", metavar="ID"),
    mode: Optional[str] = typer.Option(None, "--mode", help="only what this mode ran", metavar="ID"),
    missed: bool = typer.Option(False, "--missed", help="only requests without an answer within their budget"),
    last: Optional[int] = typer.Option(None, "--last", help="only the last N of these", metavar="N"),
    as_json: bool = typer.Option(False, "--json", help="print one JSON object"),
) -> None:
    """Say why each request of a decision log got its mode, and how good the predictions were.

    The log may still be growing. An older part lies beside it: cat LOG.1 LOG | wenet-runtime explain -
    """

    def action() -> None:
        if last is not None and last < 1:
            raise SettingsError(f"--last is {last}: give how many decisions to show, at least 1")
        from wenet_runtime.decision import members_of
        from wenet_runtime.decision_file import read_log
        from wenet_runtime.decision_summary import KEPT, Summary

        if last is not None and last > KEPT:
            raise SettingsError(f"--last is {last}: give at most {KEPT}")
        reading = read_log(sys.stdin.buffer if log == "-" else Path(log))
        known: Set[str] = set()  # of the mode that is asked for: whether any decision names it
        wanted: Iterable[Decision] = (
            one
            for one in _noting(mode, _all_of(reading, log), known)
            if request in (None, one.request_id) and mode in (None, one.mode_id) and (one.missed or not missed)
        )
        if last is not None:
            wanted = deque(wanted, maxlen=last)
        summary = Summary()
        shown: Deque[Dict[str, Any]] = deque(maxlen=KEPT)  # a log may be of any length
        for decision in wanted:
            summary.add(decision)
            if as_json:
                shown.append(members_of(decision))
            else:
                print(sentence(decision))
        _tell_bad(reading, log)
        if not summary.decisions and request is not None:
            fail(f"no such decision of request '{request[:128]}' in {_named(log)}", EXIT_FAILURE)
        if mode is not None and not known:
            fail(f"no decision in {_named(log)} names a mode '{mode[:128]}'", EXIT_FAILURE)
        if as_json:
            left_out = summary.decisions - len(shown)
            if left_out:
                say(f"warning: only the last {KEPT} decisions are listed; the {left_out} before are in the summary")
            found = {
                "summary": summary.members(),
                "bad_lines": {"count": reading.bad, "first": reading.named},
                "left_out": left_out,
                "decisions": list(shown),
            }
            print(json.dumps(found, indent=1, allow_nan=False))
        else:
            print("\n".join(summary.lines()))

    guarded(action)


def _named(log: str) -> str:
    return "the input" if log == "-" else f"'{log}'"


def _noting(mode: Optional[str], decisions: "Iterable[Decision]", known: Set[str]) -> "Iterable[Decision]":
    """The same decisions; the mode gets into `known` if one of them ran it, tried it first or passed it over."""
    for one in decisions:
        if mode is not None and mode in (one.mode_id, one.first, one.passed_over and one.passed_over[0]):
            known.add(mode)
        yield one


def _all_of(reading: "Reading", log: str) -> "Iterable[Decision]":
    """Every decision; an input that has lines and no decision among them is no log."""
    found = False
    try:
        for one in reading:
            found = True
            yield one
    except OSError as error:
        raise SettingsError(
            f"cannot read {_named(log)} ({error.strerror}): name the file that the server's decisions are written to"
        ) from None
    if reading.bad and not found:
        fail(f"{_named(log)} is no decision log: {reading.named[0]}", EXIT_FAILURE)


def _tell_bad(reading: "Reading", log: str) -> None:
    if reading.bad:
        more = "" if reading.bad == len(reading.named) else ", …"
        say(f"warning: {reading.bad} lines of {_named(log)} are left out: {'; '.join(reading.named)}{more}")


def sentence(one: "Decision") -> str:
    """One decision in plain words."""
    from wenet_runtime.decision import Passed

    parts = [f"{_head(one)} {_asked(one)}; {_got(one)}."]
    if one.passed_over is not None:
        passed = Passed(*one.passed_over)
        parts.append(_fastest(passed) if one.mode_id is None else _over(passed))
    if one.median_ms is not None and one.mode_id is not None:
        parts.append(_latency(one))
    if one.energy_mj is not None or one.measured_mj is not None:
        parts.append(_energy(one))
    if one.slowdown is not None and one.slowdown > 0 and abs(one.slowdown - 1) >= 0.05:
        how = f"{one.slowdown:.2f} times slower" if one.slowdown > 1 else f"{1 / one.slowdown:.2f} times faster"
        parts.append(f"The device was {how} than profiled.")
    return " ".join(parts)


def _head(one: "Decision") -> str:
    try:
        when = datetime.fromtimestamp(one.time_s).isoformat(sep=" ", timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # a clock that was never set
        when = f"at {one.time_s:g} s"
    return f"{one.number}. {when} request {one.request_id or '(unnamed)'}:"


def _asked(one: "Decision") -> str:
    rows = "1 row" if one.rows == 1 else f"{one.rows} rows"
    if one.budget_ms is None:
        asked = f"{rows} without a deadline"
    else:
        left = ""
        if one.left_ms is not None:
            left = f", {_ms(one.left_ms)} of it left" if one.left_ms > 0 else ", nothing of it left"
        asked = f"{rows} within {_ms(one.budget_ms)}{left}"
    cap = "" if one.cap_mj is None else f", at most {one.cap_mj:.3g} mJ"
    limits = f", limited by {', '.join(one.limits)}" if one.limits else ""
    return f"{asked}{cap}{limits}, {one.queued} waiting"


def _got(one: "Decision") -> str:
    if one.mode_id is None:
        crowded = one.passed_over is not None and one.passed_over[1] == "no-room"
        why = _NO_ROOM if crowded else REFUSED.get(one.reason, one.reason)
        return f"expired unanswered: {why}" if one.outcome == "expired" else f"{one.outcome}: {why}"
    how = {"late": "finished late"}.get(one.outcome, one.outcome)
    why = CHOSEN.get(one.reason, one.reason)
    if one.first is not None:
        why = "it was sure enough" if one.first == one.mode_id else f"{one.first} was tried first and not sure enough"
    batch = f" in a batch of {one.batch_rows} rows" if (one.batch_rows or 0) > one.rows else ""
    return f"{one.mode_id} {how}{batch} ({one.reason}: {why})"


def _over(passed: "Passed") -> str:
    unit = "mJ per row" if passed.why in ("too-dear", "over-power") else "ms"
    value = "an unknown number of" if passed.value is None else f"{passed.value:.3g}"
    limit = "an unknown number of" if passed.limit is None else f"{passed.limit:.3g}"
    texts = {
        "too-slow": f"would have taken up to {value} {unit}, more than the {limit} {unit} left.",
        "too-dear": f"would have taken {value} {unit}, more than the {limit} allowed.",
        "over-power": f"would have taken {value} {unit} above idle; the power budget left {limit}.",
        "no-room": f"would have taken up to {value} {unit}; those who wait, or may come, left {limit} {unit}.",
        "not-worth": f"is {_points(passed.value)} more accurate, and would have cost later requests "
        f"{_points(passed.limit)}.",
        "not-resident": "was not loaded.",
    }
    return f"{passed.mode_id} {texts.get(passed.why, f'was passed over ({passed.why}: {value} against {limit}).')}"


def _fastest(passed: "Passed") -> str:
    """Of a request that never ran: what its fastest mode was predicted to do."""
    if passed.value is None:
        return f"The fastest allowed mode was {passed.mode_id}."
    text = f"{passed.mode_id} was predicted to end after {_ms(passed.value)}"
    if passed.limit is None:
        return f"{text}."
    unsure = ", but not surely enough" if passed.why == "too-slow" and passed.value <= passed.limit else ""
    return f"{text} of the {_ms(passed.limit)}{unsure}."


def _points(accuracy: Optional[float]) -> str:
    return "an unknown number of points" if accuracy is None else f"{100 * accuracy:.3g} points"


def _latency(one: "Decision") -> str:
    bound = "" if one.bound_ms is None else f", at most {_ms(one.bound_ms)}"
    predicted = f"Predicted {_ms(one.median_ms or 0.0)}{bound}"
    if one.measured_ms is None:
        return f"{predicted}; nothing was measured."
    error = f" ({one.measured_ms / one.median_ms - 1:+.0%})" if one.median_ms else ""
    return f"{predicted}; measured {_ms(one.measured_ms)}{error}."


def _energy(one: "Decision") -> str:
    predicted = "unknown" if one.energy_mj is None else f"{one.energy_mj:.3g} mJ"
    if one.measured_mj is None or one.energy_source in ("none", "estimate"):
        return f"Energy per row: {predicted} predicted, not measured."
    return f"Energy per row: {predicted} predicted, {one.measured_mj:.3g} mJ by {one.energy_source}."


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if abs(value) < 1000 else f"{value:.0f} ms"
