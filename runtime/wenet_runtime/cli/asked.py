"""What the verbs that ask a server share: options are checked before they are sent, and a refusal has a code."""

from typing import Any, Mapping, Optional

from wenet_runtime.cli.ends import EXIT_BUDGET, EXIT_FAILURE, EXIT_METER, EXIT_USAGE
from wenet_runtime.errors import BudgetError, SettingsError

# of the problems that the one who asks can do something about, by their slug; all others are EXIT_FAILURE
_EXITS = {
    "budget-impossible": EXIT_BUDGET,
    "energy-unavailable": EXIT_METER,
    "bad-header": EXIT_USAGE,
    "conflicting-options": EXIT_USAGE,
    "unknown-mode": EXIT_USAGE,
}


def check_options(asked: Mapping[str, Any]) -> None:
    """Refuse what a server would refuse, by the same ranges.

    Args:
        asked: options by name, such as budget_ms; those that are None or not there are left to the server.

    Raises:
        SettingsError: one has an impossible value; the message names its flag.
    """
    from wenet_runtime.budget import Budget, RequestOptions

    more = {name: asked[name] for name in ("on_miss", "priority") if asked.get(name) is not None}
    try:
        RequestOptions(Budget(asked.get("budget_ms"), asked.get("budget_mj"), asked.get("min_accuracy")), **more)
    except BudgetError as error:
        name, _, rest = str(error).partition(" ")
        raise SettingsError(f"--{name.replace('_', '-')} {rest}") from None


def exit_of(slug: Optional[str]) -> int:
    """The exit code for a problem that a server answered with; None for no answer at all."""
    return _EXITS.get(slug or "", EXIT_FAILURE)
