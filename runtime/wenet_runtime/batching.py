"""Which waiting requests run together: only those whose batch takes less than they would one by one, within slack."""

from typing import Iterator, List, Sequence

from wenet_runtime.admission import DeadlineQueue, Job, Work
from wenet_runtime.controller import Controller
from wenet_runtime.policy import Choice

# A batch has to take this share of what its rows take one by one: less gained is less than the noise.
GAIN = 0.95


class Batching:
    """The rule for one engine.

    Args:
        max_rows: of a batch that is put together.
        max_delay_ms: how long a request may wait for company, and never longer than a quarter of its slack.
    """

    def __init__(self, max_rows: int = 1, max_delay_ms: float = 0.0) -> None:
        self._max_rows = max_rows
        self._max_delay_ms = max_delay_ms

    def batches(
        self, head: Job[Work], queue: DeadlineQueue[Work], controller: Controller
    ) -> Iterator[Sequence[Job[Work]]]:
        """The most urgent job alone, then with one more at a time of those that may go with it."""
        jobs: List[Job[Work]] = [head]
        yield jobs
        if self._max_rows <= head.rows or head.kind is None or not len(queue):
            return
        rows = head.rows
        for job in queue:
            if job is head or job.kind != head.kind:
                continue
            if rows + job.rows > self._max_rows or not _pays(rows, job.rows, controller):
                return
            rows += job.rows
            jobs = [*jobs, job]
            yield jobs

    def better(self, one: Choice, rows: int, other: Choice, other_rows: int, controller: Controller) -> bool:
        """Whether a larger batch is the better choice: more accurate, or as accurate and quicker per row."""
        predictor = controller.predictor
        mine, its = (predictor.accuracies[predictor.index[choice.mode_id]] for choice in (one, other))
        return mine > its or (mine == its and one.median_ms / rows < GAIN * other.median_ms / other_rows)

    def wait_until_s(self, head: Job[Work], queue: DeadlineQueue[Work], controller: Controller, now_s: float) -> float:
        """Until when the most urgent job waits for company; `now_s` if it does not."""
        if self._max_delay_ms <= 0 or head.kind is None or head.rows >= self._max_rows:
            return now_s
        if not _pays(head.rows, 1, controller):
            return now_s
        if sum(job.rows for job in queue if job.kind == head.kind) >= self._max_rows:
            return now_s
        if head.company_s is None:
            slack_ms = (head.ends_s - now_s) * 1e3 - controller.forecast(head.rows + 1).medians_ms[head.fastest_at]
            head.company_s = head.submitted_s + max(0.0, min(self._max_delay_ms, slack_ms / 4)) / 1e3
        return max(now_s, head.company_s)


def _pays(rows: int, more: int, controller: Controller) -> bool:
    """Whether any mode's profile was measured in batches and says that one run beats two."""
    return any(
        profile.batch_ms and profile.median_ms(rows + more) < GAIN * (profile.median_ms(rows) + profile.median_ms(more))
        for profile in controller.profiles.values()
    )
