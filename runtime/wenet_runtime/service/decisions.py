"""Writes down what was decided about a request, once it is known how it ended."""

import time
from typing import List, Optional

from wenet_runtime.budget import Deadline, RequestOptions
from wenet_runtime.controller import Controller
from wenet_runtime.decision import ANSWERED, EXPIRED, LATE, REFUSED, Decision
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.result import Result
from wenet_runtime.service.problems import DECIDED, Problem


class Decisions:
    """Turns replies into decisions.

    Args:
        log: where they go.
        controller: what was asked for, and how slow the device is.
    """

    def __init__(self, log: DecisionLog, controller: Controller) -> None:
        self.log = log
        self._controller = controller

    def answered(
        self, request_id: str, result: Result, rows: int, options: RequestOptions, deadline: Deadline, now_s: float
    ) -> None:
        """Write down a request that was executed; `now_s` is when its reply was ready, monotonic."""
        choice = result.choice
        left_ms = deadline.left_ms(result.decided_s)
        self.log.add(
            Decision(
                number=self.log.next_number(),
                time_s=time.time() - (now_s - result.decided_s),
                request_id=request_id,
                rows=rows,
                queued=result.queued,
                outcome=ANSWERED if deadline.left_ms(now_s) >= 0 else LATE,
                reason=result.reason,
                mode_id=result.mode_id,
                budget_ms=deadline.limit_ms,
                left_ms=None if deadline.limit_ms is None else left_ms,
                limits=tuple(_limits(options)),
                median_ms=choice.median_ms,
                bound_ms=choice.bound_ms,
                measured_ms=(now_s - result.decided_s) * 1e3,
                attainment=self._controller.attainment,
                energy_mj=choice.energy_mj,
                measured_mj=result.energy_mj,
                energy_source=result.energy_source,
                slowdown=result.slowdown,
                passed_over=choice.passed_over,
                first=None if choice.rule is None else choice.rule.first,
                batch_rows=result.batch_rows,
            )
        )

    def failed(self, request_id: str, problem: Problem, options: Optional[RequestOptions]) -> None:
        """Write down a request that got no answer, if that was a decision about its budget."""
        if problem.slug not in DECIDED:
            return
        members = problem.extra
        budget_ms, predicted_ms = members.get("budget_ms"), members.get("predicted_ms")
        fastest = members.get("fastest_mode")
        executed = members.get("executed") is True
        self.log.add(
            Decision(
                number=self.log.next_number(),
                time_s=time.time(),
                request_id=request_id,
                rows=1,
                queued=0,
                outcome=LATE if executed else EXPIRED if problem.slug == "deadline-exceeded" else REFUSED,
                reason=problem.slug,
                budget_ms=budget_ms,
                limits=() if options is None else tuple(_limits(options)),
                attainment=self._controller.attainment,
                slowdown=self._controller.slowdown.factor,
                passed_over=None if fastest is None else (fastest, "too-slow", predicted_ms, budget_ms),
            )
        )


def _limits(options: RequestOptions) -> List[str]:
    """What the request's decision was bound by, by the names of the options."""
    budget = options.budget
    given = {
        "budget_ms": budget.latency_ms,
        "budget_mj": budget.energy_mj,
        "min_accuracy": budget.min_accuracy,
        "mode": options.mode,
        "timeout": options.protocol_ms,
    }
    return [name for name, value in given.items() if value is not None]
