"""Which waiting requests run together: only those whose batch takes less than they would one by one, within slack."""

from typing import Iterator, List, Optional, Sequence

from wenet_runtime.admission import DeadlineQueue, Job, Work
from wenet_runtime.controller import Controller
from wenet_runtime.errors import WeNetError
from wenet_runtime.policy import Choice
from wenet_runtime.residency import Residency

# A batch has to take this share of what its rows take one by one: less gained is less than the noise.
GAIN = 0.95


class Batching:
    """The rule for one engine.

    Args:
        max_rows: of a batch that is put together.
        max_delay_ms: how long a request may wait for company, and never longer than a quarter of its slack.

    Attributes:
        joins: whether any ever run together.
    """

    def __init__(self, max_rows: int = 1, max_delay_ms: float = 0.0) -> None:
        self._max_rows = max_rows
        self.joins = max_rows > 1
        self._max_delay_ms = max_delay_ms

    def batches(
        self, head: Job[Work], queue: DeadlineQueue[Work], controller: Controller, now_s: float
    ) -> Iterator[Sequence[Job[Work]]]:
        """The most urgent job alone, then with one more at a time of those that may go with it."""
        jobs: List[Job[Work]] = [head]
        yield jobs
        if self._max_rows <= head.rows or head.kind is None or not len(queue):
            return
        rows = head.rows
        for job in queue:
            if job is head or job.kind != head.kind or job.ends_s <= now_s:
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

    def service_ms(self, job: Job[Work], rows: int, controller: Controller) -> float:
        """How long so many rows of a job's kind keep the engine at the least, put together where that pays."""
        if rows <= self._max_rows or not self.pays(job, controller):
            return _service_ms(job, rows, controller)
        full, rest = divmod(rows, self._max_rows)
        total_ms = full * _service_ms(job, self._max_rows, controller)
        return total_ms + (_service_ms(job, rest, controller) if rest else 0.0)

    def pays(self, job: Job[Work], controller: Controller) -> bool:
        """Whether jobs of its kind are ever put together."""
        return self._max_rows > 1 and job.kind is not None and _pays(1, 1, controller)

    def wait_until_s(
        self,
        head: Job[Work],
        queue: DeadlineQueue[Work],
        controller: Controller,
        now_s: float,
        residency: Optional[Residency] = None,
    ) -> float:
        """Until when the most urgent job waits for company; `now_s` if it does not.

        Never so long that it loses the mode it would get now, and not while others wait that cannot join it.
        """
        if self._max_delay_ms <= 0 or head.kind is None or head.rows >= self._max_rows:
            return now_s
        if not _pays(head.rows, 1, controller) or any(job.kind != head.kind for job in queue):
            return now_s
        if sum(job.rows for job in queue) >= self._max_rows:
            return now_s
        if head.company_s is None:
            head.company_s = self._company_s(head, controller, now_s, residency)
        ends = [job.company_s for job in queue if job.company_s is not None]
        return max(now_s, min(ends))

    def _company_s(
        self, head: Job[Work], controller: Controller, now_s: float, residency: Optional[Residency]
    ) -> float:
        try:
            choice = controller.choose(head.options, head.deadline, rows=head.rows, now_s=now_s, residency=residency)
        except WeNetError:  # it is told when its turn comes, which is now
            return now_s
        at = controller.predictor.index[choice.mode_id]
        left_ms = head.deadline.left_ms(now_s)
        slack_ms = left_ms - controller.forecast(head.rows + 1).medians_ms[at]
        wait_ms = min(self._max_delay_ms, slack_ms / 4, left_ms - choice.bound_ms)
        return head.submitted_s + max(0.0, wait_ms) / 1e3


def _service_ms(job: Job[Work], rows: int, controller: Controller) -> float:
    forecast = controller.forecast(rows)
    return forecast.medians_ms[job.fastest_at] - forecast.reply_ms


def _pays(rows: int, more: int, controller: Controller) -> bool:
    """Whether any mode's profile was measured in batches and says that one run beats two."""
    return any(
        profile.median_ms(rows + more) < GAIN * (profile.median_ms(rows) + profile.median_ms(more))
        for profile in controller.batched
    )
