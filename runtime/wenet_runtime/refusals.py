"""What a request is told that cannot run for the sake of others, or not any more."""

from wenet_runtime.admission import Job, Work
from wenet_runtime.errors import DeadlineExceeded, InfeasibleBudget


def endangering(job: Job[Work], fastest_mode: str, needed_ms: float, now_s: float) -> InfeasibleBudget:
    """It could be met, but one accepted before would then miss; `needed_ms` with waiting, by the fastest mode."""
    refusal = InfeasibleBudget(
        f"fastest allowed mode predicts {needed_ms:.3g} ms with waiting, and a request accepted before would then "
        "miss its deadline",
        budget_ms=job.deadline.limit_ms,
        predicted_ms=job.deadline.elapsed_ms(now_s) + needed_ms,
        fastest_mode=fastest_mode,
    )
    refusal.why = "no-room"
    return refusal


def over(job: Job[Work]) -> DeadlineExceeded:
    """Its time ended while it waited."""
    return DeadlineExceeded(
        f"the budget of {job.deadline.limit_ms:g} ms ended while the request waited",
        executed=False,
        budget_ms=job.deadline.limit_ms,
    )
