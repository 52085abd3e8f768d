"""Whether a cheaper mode is tried before the chosen one: the bundle's cascade, where time, energy and guard allow."""

from dataclasses import replace
from typing import Dict, Optional, Sequence

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.admission import Job, Work
from wenet_runtime.cascade import Cascade
from wenet_runtime.controller import Controller
from wenet_runtime.guard import BURST, Guard
from wenet_runtime.policy import Choice
from wenet_runtime.residency import Residency

MOST_ROWS = int(BURST)


class Escalation:
    """The cascade of one engine and what guards it. Not for several threads at once.

    Args:
        cascade: a bundle's rules.
        guard: counts what clients make escalate.
    """

    def __init__(self, cascade: Cascade, guard: Optional[Guard] = None) -> None:
        self.guard = Guard() if guard is None else guard
        self._cascade = cascade

    def tried(
        self,
        choice: Choice,
        jobs: Sequence[Job[Work]],
        rows: int,
        controller: Controller,
        tight_ms: float,
        residency: Optional[Residency],
    ) -> Choice:
        """The same choice, or one that tries a cheaper mode first.

        Both modes' bounds together have to fit what there is, so that nothing is missed that the mode alone would
        have met; the certified loss is within the accuracy floor.

        Args:
            choice: of the mode alone.
            jobs, rows: what runs.
            controller: predicts.
            tight_ms: the time that there is.
            residency: which modes are there; all if not given.
        """
        if choice.reason not in ("fits", "energy", "thermal", "only-mode"):
            return choice
        forecast = controller.forecast(rows)
        costs = {
            mode_id: median_ms - forecast.reply_ms
            for mode_id, median_ms in zip(forecast.ids, forecast.medians_ms)
            if residency is None or mode_id in residency.resident
        }
        rule = self._cascade.rule_for(choice.mode_id, costs)
        if rule is None:
            return choice
        first, then = controller.predictor.index[rule.first], controller.predictor.index[rule.then]
        options = jobs[0].options
        floor = options.budget.min_accuracy
        if floor is not None and forecast.accuracies[then] - rule.epsilon < floor:
            return choice
        bound_ms = forecast.bounds_ms[first] + forecast.bounds_ms[then] - forecast.reply_ms
        if bound_ms > tight_ms:
            return choice
        cheap_mj, dear_mj = forecast.energies_mj[first], forecast.energies_mj[then]
        both_mj = None if cheap_mj is None or dear_mj is None else (cheap_mj, dear_mj)
        mean_mj = None if both_mj is None else both_mj[0] + rule.escalated * both_mj[1]
        budget_mj = options.budget.energy_mj
        if budget_mj is not None and (both_mj is None or sum(both_mj) > budget_mj):
            return choice
        if choice.cap_mj is not None and (both_mj is None or mean_mj is None or mean_mj > both_mj[1]):
            return choice  # quicker, but dearer: under a power budget that saves nothing
        asked: Dict[str, int] = {}
        for job in jobs:
            asked[job.client] = asked.get(job.client, 0) + job.rows
        if rows > MOST_ROWS:  # more than the guard ever allows at once
            return choice
        if not self.guard.allows_all(asked):
            return replace(choice, reason="guard")
        return replace(
            choice,
            reason="cascade",
            median_ms=costs[rule.first] + rule.escalated * costs[rule.then] + forecast.reply_ms,
            bound_ms=bound_ms,
            energy_mj=mean_mj,
            rule=rule,
            cascade_mj=both_mj,
        )

    def observe(
        self, choice: Choice, jobs: Sequence[Job[Work]], escalated: NDArray[np.bool_], controller: Controller
    ) -> None:
        """Charge what escalated to those who sent it."""
        if choice.rule is None:
            return
        forecast = controller.forecast(1)
        at = controller.predictor.index
        cost = forecast.idles_ms[at[choice.rule.first]] / max(1e-9, forecast.idles_ms[at[choice.rule.then]])
        row = 0
        for job in jobs:
            for _ in range(job.rows):
                self.guard.observe(job.client, bool(escalated[row]), choice.rule.escalated, cost)
                row += 1
