"""The decision loop without threads and clocks: who waits, who is refused, who runs next, and in which mode.

The daemon's engine thread and the simulator drive the very same code.
"""

from dataclasses import replace
from typing import Callable, Generic, List, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.admission import DeadlineQueue, Job, Work
from wenet_runtime.assignment import Assignment, Part
from wenet_runtime.batch_choice import BatchChoice
from wenet_runtime.batching import Batching
from wenet_runtime.controller import Controller
from wenet_runtime.early import Early
from wenet_runtime.errors import EngineError, InfeasibleBudget, QueueFull, WeNetError
from wenet_runtime.escalation import Escalation
from wenet_runtime.outlook import Outlook, here_and_now
from wenet_runtime.policy import Choice
from wenet_runtime.power_budget import PowerBudget
from wenet_runtime.pricing import Pricing
from wenet_runtime.refusals import endangering, over
from wenet_runtime.residency import Residency


class Scheduler(Generic[Work]):
    """Queue, admission, choice, batching and feedback of one engine. Not for several threads at once.

    Args:
        controller: predicts and chooses.
        max_queue: how many jobs may wait.
        batching: which of them run together; each alone if not given.
        power: the average power, or the battery, that has to last; None without.
        escalation: the cascade; None without.
        plan: runs what may take some milliseconds, here or on another thread.

    Attributes:
        refused: accepted jobs that cannot run any more, each with its error; the caller takes them out.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        max_queue: int = 64,
        batching: Optional[Batching] = None,
        power: Optional[PowerBudget] = None,
        escalation: Optional[Escalation] = None,
        plan: Callable[[Callable[[], None]], None] = here_and_now,
    ) -> None:
        self.controller = controller
        self.power = power
        self._pricing = Pricing(controller, power)
        self.escalation = escalation
        self.refused: List[Tuple[Job[Work], WeNetError]] = []
        self._queue: DeadlineQueue[Work] = DeadlineQueue(max_queue)
        self._batching = batching or Batching()
        self._outlook = Outlook(controller, self._batching, plan)
        self._batch_choice = BatchChoice(
            controller, self._queue, self._batching, self._outlook, self._pricing, escalation=escalation
        )
        self._began_s: Optional[float] = None  # of the present run
        self._busy_until_s = 0.0

    @property
    def joins(self) -> bool:
        """Whether jobs ever run together: otherwise nobody looks at their kind."""
        return self._batching.joins

    def submit(self, job: Job[Work], now_s: float, residency: Optional[Residency] = None) -> Choice:
        """Accept a job, or refuse it before anything runs.

        Returns:
            The mode that would answer it if nothing changed.

        Raises:
            QueueFull, and what `Controller.choose` raises for the time it would have to wait.
            InfeasibleBudget: it could be met only if one accepted before were not.
        """
        controller = self.controller
        forecast = controller.forecast(job.rows)
        job.fastest_at = controller.fastest_at(job.options, job.rows, residency)
        fastest_ms = forecast.medians_ms[job.fastest_at]
        present = len(self._queue) + (1 if self._began_s is None else 2)
        job.waited = present > 1
        busy_ms = self._busy_ms(now_s)
        ahead_ms, endangered = self._outlook.ahead(self._queue, job, fastest_ms - forecast.reply_ms, busy_ms, now_s)
        if endangered and job.options.on_miss == "late":  # it is executed whenever that harms nobody
            job.behind, endangered = True, False
            ahead_ms, _ = self._outlook.ahead(self._queue, job, 0.0, busy_ms, now_s)
        try:
            choice = controller.choose(
                job.options, job.deadline, rows=job.rows, now_s=now_s, wait_ms=ahead_ms, residency=residency
            )
            if endangered:
                raise endangering(job, forecast.ids[job.fastest_at], ahead_ms + fastest_ms, now_s)
        except InfeasibleBudget as refusal:
            self._outlook.arrived(job, self._queue, present, now_s)
            if ahead_ms > 0:
                refusal.retry_after_ms = ahead_ms
                self._outlook.missed()
            raise
        self._outlook.arrived(job, self._queue, present, now_s)
        if present == 1:
            job.early = Early(choice, forecast, residency, now_s)
        try:
            self._queue.put(job)
        except QueueFull:
            self._outlook.missed()
            raise
        self._pricing.arrived(job.rows, now_s)
        return choice

    def _busy_ms(self, now_s: float) -> float:
        """How long the present run is still expected to take: one that is overdue, as long again as it is that."""
        return 0.0 if self._began_s is None else abs(self._busy_until_s - now_s) * 1e3

    def discard(self, job: Job[Work], now_s: float) -> bool:
        """Take a job out that nobody waits for any more; False if it does not wait."""
        found = self._queue.remove(job)
        if found and job.ends_s <= now_s:
            self._outlook.missed()
        return found

    def tick(self, now_s: float) -> None:
        """Let time pass although nobody asks for anything."""
        self._pricing.tick(now_s)

    def expired(self, now_s: float) -> List[Job[Work]]:
        """Take out the waiting jobs whose time is over, at infinity all of them; they never run."""
        ended = [job for job in self._queue if job.ends_s <= now_s]
        for job in ended:
            self._queue.remove(job)
            self._outlook.missed()
        return ended

    def next(self, now_s: float, residency: Optional[Residency] = None) -> Union[Assignment[Work], float, None]:
        """What runs now; or the instant to ask again, if a job waits for company; or None if nothing waits."""
        while True:
            head = self._queue.first
            if head is None:
                return None
            if head.ends_s <= now_s:
                self._queue.remove(head)
                self.refused.append((head, over(head)))
                self._outlook.missed()
                continue
            if head.options.on_miss == "late" and head.deadline.at_s <= now_s and not head.behind:
                self._queue.put_behind(head)  # its budget is over, that of others is not
                continue
            until_s = self._batching.wait_until_s(head, self._queue, self.controller, now_s, residency)
            if until_s > now_s:
                return until_s
            self._queue.remove(head)
            try:
                assignment = self._batch_choice.of(head, now_s, residency)
            except WeNetError as error:
                self.refused.append((head, error))
                continue
            except Exception:
                self.refused.append((head, EngineError("the scheduler failed: send again")))
                raise
            self._begin(assignment, now_s)
            return assignment

    def _begin(self, assignment: Assignment[Work], now_s: float) -> None:
        reply_ms = self.controller.forecast(assignment.rows).reply_ms
        self._began_s = now_s
        self._busy_until_s = now_s + max(0.0, assignment.choice.median_ms - reply_ms) / 1e3

    def again(
        self, assignment: Assignment[Work], now_s: float, residency: Optional[Residency] = None
    ) -> Assignment[Work]:
        """Choose anew for jobs whose mode went between its choice and its use. Raises what `choose` raises."""
        tightest = min(assignment.jobs, key=lambda job: job.deadline.at_s)
        choice = self.controller.choose(
            tightest.options,
            tightest.deadline,
            rows=assignment.rows,
            now_s=now_s,
            price_mj=self._pricing.price_mj(now_s),
            residency=residency,
        )
        again = replace(assignment, choice=choice, decided_s=now_s)
        self._begin(again, now_s)
        return again

    def finished(
        self,
        assignment: Assignment[Work],
        start_s: float,
        end_s: float,
        energy_mj: Optional[float] = None,
        parts: Optional[Sequence[Part]] = None,
        escalated: Optional[NDArray[np.bool_]] = None,
    ) -> None:
        """Feed back one run.

        Args:
            assignment: what ran.
            start_s, end_s: monotonic.
            energy_mj: of the whole board in that time, measured; None when unknown.
            parts: what ran, mode by mode; the choice's mode alone if not given.
            escalated: by row, whether a cascade's second mode answered.
        """
        self.ended()
        for job in assignment.jobs:
            self._outlook.answered(job, end_s)
        choice = assignment.choice
        parts = parts or [Part(choice.mode_id, assignment.rows, (end_s - start_s) * 1e3)]
        for part in parts:
            self.controller.observe(part.mode_id, part.ms, part.rows, end_s)
        if self.escalation is not None and escalated is not None:
            self.escalation.observe(choice, assignment.jobs, escalated, self.controller)
        if energy_mj is not None and len(parts) == 1:
            part = parts[0]
            self.controller.predictor.observe_energy(part.mode_id, energy_mj, part.rows, part.ms)
        self._pricing.spent(choice, parts, assignment.rows, energy_mj, start_s, end_s)

    def ended(self) -> None:
        """The engine is free again; what its run taught, if it did, comes with `finished`."""
        self._began_s = None

    def __len__(self) -> int:
        return len(self._queue)
