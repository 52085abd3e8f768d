"""What the runtime's queue carries, and how a batch becomes one answer per request."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import List, Optional

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
