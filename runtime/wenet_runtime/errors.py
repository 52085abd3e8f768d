"""Every error this package raises on purpose.

A message says what was wrong, what was found and what to do. Only `service` maps these
to HTTP statuses and only `cli` to exit codes.
"""


class WeNetError(Exception):
    """Base of every error raised on purpose."""


class BundleError(WeNetError):
    """The bundle is missing, damaged, unsafe or of an unknown format."""


class EngineError(WeNetError):
    """An engine could not be built, loaded or run."""


class MeterError(WeNetError):
    """A meter was required and cannot deliver."""


class SettingsError(WeNetError):
    """A setting has an unknown name or an impossible value."""


class BudgetError(WeNetError):
    """A budget or request option is out of range or contradicts another."""


class UnknownMode(WeNetError):
    """A mode was named that the bundle does not have."""


class InvalidTensor(WeNetError):
    """An input has the wrong name, type or shape for this model."""


class EnergyUnavailable(WeNetError):
    """An energy budget was given, but no mode has a known energy."""


class Refused(WeNetError):
    """The request was refused before anything ran.

    Attributes:
        budget_ms: the effective end-to-end budget, if there was one.
        predicted_ms: the predicted end-to-end latency of the fastest allowed mode.
        fastest_mode: that mode's id.
        why: what was in that mode's way, one of `decision.PASSED_OVER`: `no-room` where it would have been in time
            itself, and one accepted before would not.
        wanted: the mode that would have answered, had it been resident.
        retry_after_ms: when it may be worth while to ask again, if that is known.
    """

    why: str = "too-slow"
    wanted: "str | None" = None
    retry_after_ms: "float | None" = None

    def __init__(
        self,
        message: str,
        *,
        budget_ms: "float | None" = None,
        predicted_ms: "float | None" = None,
        fastest_mode: "str | None" = None,
    ) -> None:
        super().__init__(message)
        self.budget_ms = budget_ms
        self.predicted_ms = predicted_ms
        self.fastest_mode = fastest_mode


class BudgetImpossible(Refused):
    """No allowed mode could meet the budget even on an idle device: repeating is useless."""


class InfeasibleBudget(Refused):
    """The budget could be met, but not now."""


class NotResident(Refused):
    """No mode that the request accepts can answer now."""


class NotReady(Refused):
    """Nothing can be answered at the moment, whatever is asked."""


class QueueFull(Refused):
    """Too many requests are waiting."""


class Draining(Refused):
    """The runtime is shutting down and takes no new work."""


class DeadlineExceeded(WeNetError):
    """Accepted, then expired. `executed` says whether it ran."""

    def __init__(self, message: str, *, executed: bool, budget_ms: "float | None" = None) -> None:
        super().__init__(message)
        self.executed = executed
        self.budget_ms = budget_ms
