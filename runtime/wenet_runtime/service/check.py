"""What a check of this device found, and what to do about it."""

from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence, Tuple

OK, SKIPPED, WARN, FAIL = "ok", "skipped", "warn", "fail"
_WORST = (OK, SKIPPED, WARN, FAIL)  # the worst last


@dataclass(frozen=True)
class Check:
    """One line of `wenet-runtime doctor`.

    Attributes:
        name: what was looked at.
        status: `ok`; `warn`, serving goes on with less; `fail`, what was asked for will not work; `skipped`, there is
            nothing to look at here.
        found: what was found, or why it was skipped.
        remedy: what to do, in one line; empty if nothing.
        data: the same for programs.
    """

    name: str
    status: str
    found: str
    remedy: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


def worst(checks: Sequence[Check]) -> str:
    """The worst status of all; what was skipped is no worse than what is fine."""
    found = max((one.status for one in checks), key=_WORST.index, default=OK)
    return OK if found == SKIPPED else found


def problem(name: str, status: str, error: object) -> Check:
    """A check from an error's text, which ends in what to do after its last colon; of what is skipped, nothing is."""
    found, remedy = parts(str(error))
    return (
        Check(name, status, " ".join(str(error).split())) if status == SKIPPED else Check(name, status, found, remedy)
    )


def parts(text: str) -> Tuple[str, str]:
    """What is wrong, and what to do."""
    one_line = " ".join(text.split())
    wrong, colon, remedy = one_line.rpartition(": ")
    return (wrong, remedy) if colon else (one_line, "")
