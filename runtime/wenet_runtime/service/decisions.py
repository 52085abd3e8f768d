"""Writes down what was decided about a request, once it is known how it ended."""

import time
from typing import List, NamedTuple, Optional

from wenet_runtime.budget import Deadline, RequestOptions
from wenet_runtime.controller import Controller
from wenet_runtime.decision import ANSWERED, EXPIRED, LATE, REFUSED, Decision
from wenet_runtime.decision_log import DecisionLog
from wenet_runtime.result import Result
from wenet_runtime.service.problems import DECIDED, Problem


class Asked(NamedTuple):
    """What a request asked for.

    Attributes:
        request_id: as the client gave it or the server made it.
        rows: of its batch.
        options: its budget and the rest.
        deadline: its clock.
    """

    request_id: str
    rows: int
    options: RequestOptions
    deadline: Deadline


class Decisions:
    """Turns replies into decisions.

    Args:
        log: where they go.
        controller: what was asked for, and how slow the device is.
    """

    def __init__(self, log: DecisionLog, controller: Controller) -> None:
        self.log = log
        self._controller = controller

    def answered(self, asked: Asked, result: Result, now_s: float) -> None:
        """Write down a request that was executed; `now_s` is when its reply was ready, monotonic."""
        choice, deadline = result.choice, asked.deadline
        self.log.add(
            Decision(
                number=self.log.next_number(),
                time_s=time.time() - (now_s - result.decided_s),
                request_id=asked.request_id,
                rows=asked.rows,
                queued=result.queued,
                outcome=ANSWERED if deadline.left_ms(now_s) >= 0 else LATE,
                reason=result.reason,
                mode_id=result.mode_id,
                budget_ms=deadline.limit_ms,
                left_ms=_left_ms(deadline, result.decided_s),
                limits=tuple(_limits(asked.options, choice.cap_mj)),
                median_ms=choice.median_ms,
                bound_ms=choice.bound_ms,
                measured_ms=(now_s - result.decided_s) * 1e3,
                attainment=self._controller.attainment,
                energy_mj=choice.energy_mj,
                measured_mj=result.energy_mj,
                energy_source=result.energy_source,
                slowdown=result.slowdown,
                cap_mj=choice.cap_mj,
                passed_over=choice.passed_over,
                first=None if choice.rule is None else choice.rule.first,
                batch_rows=result.batch_rows,
            )
        )

    def failed(self, asked: Asked, problem: Problem, why: str, others: int, now_s: float) -> None:
        """Write down a request that never ran, if that was a decision.

        Args:
            asked: what it asked for.
            problem: what it is told.
            why: what was in the fastest mode's way, see `Refused`.
            others: how many requests wait.
            now_s: the monotonic clock.
        """
        if problem.slug not in DECIDED:
            return
        fastest, predicted_ms = problem.extra.get("fastest_mode"), problem.extra.get("predicted_ms")
        limit_ms = asked.deadline.limit_ms
        self.log.add(
            Decision(
                number=self.log.next_number(),
                time_s=time.time(),
                request_id=asked.request_id,
                rows=asked.rows,
                queued=others + 1,
                outcome=EXPIRED if problem.slug == "deadline-exceeded" else REFUSED,
                reason=problem.slug,
                budget_ms=limit_ms,
                left_ms=_left_ms(asked.deadline, now_s),
                limits=tuple(_limits(asked.options)),
                attainment=self._controller.attainment,
                slowdown=self._controller.slowdown.factor,  # one number, which is there at any time: no lock
                passed_over=None if fastest is None else (fastest, why, predicted_ms, limit_ms),
            )
        )


def _left_ms(deadline: Deadline, at_s: float) -> Optional[float]:
    return None if deadline.limit_ms is None else deadline.left_ms(at_s)


def _limits(options: RequestOptions, cap_mj: Optional[float] = None) -> List[str]:
    """What the request's decision was bound by, of `decision.LIMITS`."""
    budget = options.budget
    given = {
        "budget_ms": budget.latency_ms,
        "budget_mj": budget.energy_mj,
        "min_accuracy": budget.min_accuracy,
        "mode": options.mode,
        "deadline": options.protocol_ms,
        "power_w": cap_mj,
    }
    return [name for name, value in given.items() if value is not None]
