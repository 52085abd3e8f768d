"""What a run leaves to others: those who wait already, those who may come, and what their accuracy is worth."""

import itertools
import math
from typing import AbstractSet, Sequence, Tuple

from wenet_runtime.admission import DeadlineQueue, Job, Work
from wenet_runtime.controller import Controller
from wenet_runtime.reserve import Reserve
from wenet_runtime.shadow_price import ShadowPrice


class Outlook:
    """Looks at a queue from the side of the job that is to run.

    Args:
        controller: predicts.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._reserve = Reserve(controller.attainment)
        self._shadow = ShadowPrice()

    def arrived(self, job: Job[Work], fastest_ms: float, now_s: float) -> None:
        """Take in an arrival, and what the fastest mode that it accepts takes, ms."""
        self._reserve.arrived(job.deadline.left_ms(now_s), fastest_ms, now_s)

    def missed(self) -> None:
        """A request was refused or expired because others were before it."""
        self._reserve.answered(False)

    def answered(self, job: Job[Work], began_s: float, end_s: float) -> None:
        """Take in when a job began and ended."""
        in_time = end_s <= job.deadline.at_s
        # A reserve helps those who wait; who began at once and was late met a slower device.
        if in_time or began_s > job.submitted_s:
            self._reserve.answered(in_time)

    def ahead(
        self, queue: DeadlineQueue[Work], job: Job[Work], own_ms: float, busy_ms: float, now_s: float
    ) -> Tuple[float, bool]:
        """The work that would run before a job if all of it were hurried, ms; and whether the job would then make
        one behind it, of its own priority, miss a deadline that it meets without.
        """
        work_ms = busy_ms
        waiting = iter(queue)
        for one in itertools.islice(waiting, queue.place(job)):
            work_ms += self._service_ms(one)
        ahead_ms = work_ms
        for one in waiting:
            if one.options.priority != job.options.priority or one.ends_s == math.inf:
                break
            work_ms += self._service_ms(one)
            left_ms = (one.ends_s - now_s) * 1e3 - self._controller.forecast(one.rows).reply_ms
            if work_ms <= left_ms < work_ms + own_ms:
                return ahead_ms, True
        return ahead_ms, False

    def _service_ms(self, job: Job[Work]) -> float:
        """How long a waiting job keeps the engine at the least."""
        forecast = self._controller.forecast(job.rows)
        return forecast.medians_ms[job.fastest_at] - forecast.reply_ms

    def room_ms(self, queue: DeadlineQueue[Work], jobs: Sequence[Job[Work]], rows: int, now_s: float) -> float:
        """What a run of these jobs may take so that the others still meet their deadlines."""
        controller = self._controller
        together: AbstractSet[int] = {id(job) for job in jobs} if len(jobs) > 1 else frozenset()
        forecast = controller.forecast(rows)
        least_ms = forecast.medians_ms[jobs[0].fastest_at]
        room_ms, work_ms = math.inf, 0.0
        for job in queue:
            if together and id(job) in together:
                continue
            if job.rows != rows:
                rows = job.rows
                forecast = controller.forecast(rows)
            median_ms = forecast.medians_ms[job.fastest_at]
            slack_ms = (job.ends_s - now_s) * 1e3 - work_ms - median_ms
            work_ms += median_ms - forecast.reply_ms
            # What not even the fastest run before it can save does not hold the others back.
            if slack_ms >= least_ms:
                room_ms = min(room_ms, slack_ms + median_ms - forecast.bounds_ms[job.fastest_at])
        return min(room_ms, self._reserve.slack_ms - work_ms)

    def worth(self, waiting: int) -> float:
        """What a millisecond is worth to later requests where so many jobs are to be run, in accuracy."""
        return self._shadow.at(waiting)

    def decided(self, waiting: int, given_up: float, *, delayed: bool) -> None:
        """Take in a decision.

        Args:
            waiting: how many jobs were to be run.
            given_up: accuracy per millisecond that it had to give up for want of time.
            delayed: whether the job was there before the engine was free.
        """
        if not delayed:
            self._shadow.idle()
        elif given_up > 0:
            self._shadow.paid(given_up)
        self._shadow.decided(waiting)
