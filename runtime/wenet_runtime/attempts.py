"""Runs an assignment, and runs it again in another mode where its own has gone or fails."""

import threading
import time
from typing import Callable, Dict, Optional, Tuple

from wenet_runtime.answers import Ask, together
from wenet_runtime.assignment import Assignment
from wenet_runtime.dispatch import Dispatch, Run
from wenet_runtime.errors import NotResident, WeNetError
from wenet_runtime.faults import KINDS, ModeFault
from wenet_runtime.outages import Outages
from wenet_runtime.pool import Pool
from wenet_runtime.scheduler import Scheduler


class Attempts:
    """What brings an assignment to its answer, on the engine's thread.

    Args:
        dispatch: runs a batch in a mode.
        pool: the modes that are there.
        scheduler: chooses anew.
        outages: told which mode answered and which failed.
        changed: held while the scheduler is used.
        begin: told what runs now instead; `changed` is held.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        pool: Pool,
        scheduler: "Scheduler[Ask]",
        outages: Outages,
        *,
        changed: threading.Condition,
        begin: "Callable[[Assignment[Ask]], None]",
    ) -> None:
        self._dispatch = dispatch
        self._pool = pool
        self._scheduler = scheduler
        self._outages = outages
        self._changed = changed
        self._begin = begin

    def run(self, assignment: "Assignment[Ask]") -> "Tuple[Run, Assignment[Ask]]":
        """Run it; returns what ran, and the assignment with the mode that did.

        Raises:
            Refused: its mode has gone, and what is there does not do.
            Exception: what the engine raised, where no other mode may answer, or is in time.
        """
        inputs = together([job.work.inputs for job in assignment.jobs])
        failed: Dict[str, str] = {}
        fault: Optional[ModeFault] = None
        while True:
            try:
                run = self._dispatch.run(inputs, assignment.choice)
                for part in run.parts:
                    self._outages.answered(part.mode_id)
                return run, assignment
            except NotResident:
                # A mode may go between its choice and its use. What is chosen instead may go too, but the fastest
                # never does, and a request that may not have that one is refused.
                pass
            except ModeFault as met:
                fault = met
                failed[met.mode_id] = KINDS[met.kind]
                self._outages.blame(met, time.monotonic())
            with self._changed:
                try:
                    there = self._pool.residency.without(failed)
                    assignment = self._scheduler.again(assignment, time.monotonic(), there)
                except WeNetError:
                    if fault is None:
                        raise
                    # What the engine said is the reason, whatever was refused since.
                    raise (fault if fault.__cause__ is None else fault.__cause__) from None
                self._begin(assignment)
