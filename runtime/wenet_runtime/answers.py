"""What the runtime's queue carries, and how a batch becomes one answer per request."""

import contextlib
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Callable, List, Optional, Sequence

import numpy as np

from wenet_runtime.admission import Job
from wenet_runtime.assignment import Assignment
from wenet_runtime.dispatch import Run
from wenet_runtime.engines.base import Tensors
from wenet_runtime.result import Result


@dataclass(eq=False)
class Ask:
    """What a client sent, and where its answer goes."""

    inputs: Tensors
    future: "Future[Result]" = field(default_factory=Future)


def together(asked: List[Tensors]) -> Tensors:
    """The inputs of a batch, row after row."""
    if len(asked) == 1:
        return asked[0]
    return {name: np.concatenate([inputs[name] for inputs in asked]) for name in asked[0]}


def result_of(
    job: "Job[Ask]", assignment: "Assignment[Ask]", run: Run, mine: slice, meter: str, last_mode: Optional[str]
) -> Result:
    """One job's share of a run: its rows of the outputs, its share of the energy, and why it was so answered."""
    choice = assignment.choice
    mode_id = choice.mode_id
    if choice.rule is not None and run.escalated is not None and not run.escalated[mine].any():
        mode_id = choice.rule.first
    energy_mj = choice.energy_mj
    if choice.cascade_mj is not None:
        energy_mj = choice.cascade_mj[0] if mode_id != choice.mode_id else sum(choice.cascade_mj)
    source = "none" if energy_mj is None else "estimate"
    if run.energy_mj is not None:
        energy_mj, source = run.energy_mj / assignment.rows, meter
    alone = len(assignment.jobs) == 1
    return Result(
        outputs=run.outputs if alone else {name: values[mine] for name, values in run.outputs.items()},
        mode_id=mode_id,
        reason=choice.reason,
        predicted_ms=job.deadline.elapsed_ms(assignment.decided_s) + choice.median_ms,
        queue_ms=(assignment.decided_s - job.submitted_s) * 1e3,
        infer_ms=(run.end_s - run.start_s) * 1e3,
        energy_mj=energy_mj,
        energy_source=source,
        switched=last_mode not in (None, mode_id),
        finished_s=run.end_s,
        batch_rows=assignment.rows,
        choice=choice,
        decided_s=assignment.decided_s,
        queued=assignment.queued,
        slowdown=assignment.slowdown,
    )


def hand_out(
    assignment: "Assignment[Ask]", run: Run, meter: str, last_mode: Optional[str], answered: Callable[[], None]
) -> Optional[str]:
    """Give every job of a run its answer, calling `answered` after each; returns the mode that answered last."""
    first = 0
    for job in assignment.jobs:
        mine = slice(first, first + job.rows)
        first += job.rows
        try:
            result = result_of(job, assignment, run, mine, meter, last_mode)
            last_mode = result.mode_id
        except Exception as error:  # noqa: BLE001 - that of one request alone
            fail([job], error)
        else:
            try:  # noqa: SIM105 - as quick as it gets
                job.work.future.set_result(result)
            except InvalidStateError:  # given up on, when it seemed never to end
                pass
        answered()
    return last_mode


def fail(jobs: "Sequence[Job[Any]]", error: Exception) -> None:
    """Tell those that run, and have no answer yet."""
    for job in jobs:
        with contextlib.suppress(InvalidStateError):
            job.work.future.set_exception(error)


def turn_away(jobs: "Sequence[Job[Any]]", error: Exception) -> None:
    """Tell those that waited."""
    for job in jobs:
        if job.work.future.set_running_or_notify_cancel():
            job.work.future.set_exception(error)
