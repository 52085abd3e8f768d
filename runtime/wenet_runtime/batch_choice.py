"""Which of those that wait run now, together with the most urgent one, and in which mode."""

import math
from typing import Generic, Optional

from wenet_runtime.admission import DeadlineQueue, Job, Work
from wenet_runtime.assignment import Assignment
from wenet_runtime.batching import Batching
from wenet_runtime.controller import Controller
from wenet_runtime.early import Early
from wenet_runtime.errors import WeNetError
from wenet_runtime.escalation import Escalation
from wenet_runtime.outlook import Outlook
from wenet_runtime.policy import Choice
from wenet_runtime.pricing import Pricing
from wenet_runtime.residency import Residency


class BatchChoice(Generic[Work]):
    """Chooses the batch and its mode, for a scheduler.

    Args:
        controller: predicts and chooses.
        queue: the others that wait.
        batching: which of them may go together.
        outlook: what they leave, and what later ones are worth.
        pricing: what power leaves.
        escalation: the cascade; None without.
    """

    def __init__(
        self,
        controller: Controller,
        queue: DeadlineQueue[Work],
        batching: Batching,
        outlook: Outlook,
        pricing: Pricing,
        *,
        escalation: Optional[Escalation],
    ) -> None:
        self._controller = controller
        self._queue = queue
        self._batching = batching
        self._outlook = outlook
        self._pricing = pricing
        self._escalation = escalation

    def of(self, head: Job[Work], now_s: float, residency: Optional[Residency]) -> Assignment[Work]:
        """The best of running the most urgent job alone or with those that may go with it.

        Those that go with it are taken from the queue; it is not there any more.

        Raises:
            WeNetError: what `Controller.choose` raises for the job alone.
        """
        waiting = len(self._queue) + 1
        admitted = self._as_admitted(head, now_s, residency)
        if admitted is not None:
            return self._with_escalation(Assignment((head,), head.rows, admitted, now_s), waiting, math.inf, residency)
        price_mj = self._pricing.price_mj(now_s)
        last_ms = (self._queue.last_ends_s - now_s) * 1e3
        best: Optional[Assignment[Work]] = None
        best_room_ms = math.inf
        for jobs in self._batching.batches(head, self._queue, self._controller, now_s):
            rows = sum(job.rows for job in jobs)
            tightest = min(jobs, key=lambda job: job.deadline.at_s)
            room_ms = self._outlook.room_ms(self._queue, jobs, rows, now_s)
            try:
                choice = self._controller.choose(
                    tightest.options,
                    tightest.deadline,
                    rows=rows,
                    now_s=now_s,
                    room_ms=room_ms,
                    price_mj=price_mj,
                    future=self._outlook.future(waiting - len(jobs), last_ms, now_s),
                    residency=residency,
                )
            except WeNetError:
                if best is None:
                    raise
                break
            if best is not None and choice.reason == "degraded" != best.choice.reason:
                break  # the most urgent one fits alone
            if best is None or self._batching.better(choice, rows, best.choice, best.rows, self._controller):
                best, best_room_ms = Assignment(tuple(jobs), rows, choice, now_s), room_ms
        assert best is not None  # `batches` yields the head alone first
        for job in best.jobs[1:]:
            self._queue.remove(job)
        return self._with_escalation(best, waiting, best_room_ms, residency)

    def _as_admitted(self, head: Job[Work], now_s: float, residency: Optional[Residency]) -> Optional[Choice]:
        """The choice that admitted a job which nobody was before, if choosing again would find the same; or None."""
        early: Optional[Early] = head.early
        if early is None or len(self._queue) or self._pricing.limited:
            return None
        forecast = self._controller.forecast(head.rows)
        holds = early.holds(now_s, head.deadline.left_ms(now_s), forecast, residency)
        return early.choice if holds and self._outlook.future(0, math.inf, now_s) is None else None

    def _with_escalation(
        self, best: Assignment[Work], waiting: int, room_ms: float, residency: Optional[Residency]
    ) -> Assignment[Work]:
        """The assignment whole: how many waited, how slow its mode is now, and whether a cheaper one is tried first."""
        choice, now_s = best.choice, best.decided_s
        factor = self._controller.predictor.factor_of(choice.mode_id)
        if self._escalation is not None:
            tight_ms = min(room_ms, (min(job.deadline.at_s for job in best.jobs) - now_s) * 1e3)
            choice = self._escalation.tried(choice, best.jobs, best.rows, self._controller, tight_ms, residency)
        return Assignment(best.jobs, best.rows, choice, now_s, waiting, factor)
