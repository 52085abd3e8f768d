"""The engine's thread: takes what the scheduler gives it, runs it, hands the rows back, and tells what it took.

One thread runs all inferences because a CUDA context belongs to a thread and two inferences on one
small device only delay each other.
"""

import contextlib
import logging
import math
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Optional

from wenet_runtime.answers import Ask, fail, hand_out, turn_away
from wenet_runtime.assignment import Assignment
from wenet_runtime.attempts import Attempts
from wenet_runtime.dispatch import Dispatch
from wenet_runtime.engines.base import Tensors
from wenet_runtime.errors import EngineError, NotReady, NotResident, Refused
from wenet_runtime.faults import STUCK, ModeFault
from wenet_runtime.loader import Loader
from wenet_runtime.meters.base import Meter
from wenet_runtime.outages import Outages
from wenet_runtime.pool import Pool
from wenet_runtime.present import Present
from wenet_runtime.probing import Probing
from wenet_runtime.scheduler import Scheduler
from wenet_runtime.threads import pin_this_thread

OVERDUE_S = 5.0  # a mode that failed is tried again when nothing waits, or this much later all the same

SETTLE_S = 0.002  # the longest that a reply is let go before its run is learned from

_LOG = logging.getLogger(__name__)


class EngineLoop:
    """Runs until it is closed and nothing waits any more.

    Args:
        pool: the resident modes.
        scheduler: queues, predicts and chooses; only used while `changed` is held.
        dispatch: runs a batch.
        meter: names the source of energy.
        loader: brings modes that are wanted and not resident; None if all are.
        warmup: what is run on every resident mode before the first request, and on the fastest one by a probe.
        core: pin the thread to this core; None leaves it to the system.

    Attributes:
        changed: whoever touches the scheduler holds it.
        present: what runs now.
        last_mode: the mode that answered last.
        observed_s: when a run's time was last learned, monotonic.
        outages: the modes that fail.
    """

    def __init__(
        self,
        pool: Pool,
        scheduler: "Scheduler[Ask]",
        dispatch: Dispatch,
        meter: Meter,
        *,
        loader: Optional[Loader],
        warmup: Optional[Tensors],
        core: Optional[int],
    ) -> None:
        self.changed = threading.Condition()
        self.present = Present(time.monotonic())
        self.last_mode: Optional[str] = None
        self.observed_s = 0.0
        self.outages = Outages(pool, scheduler.controller.profiles)
        self._pool = pool
        self._scheduler = scheduler
        self._dispatch = dispatch
        self._attempts = Attempts(dispatch, pool, scheduler, self.outages, changed=self.changed, begin=self._begin)
        self._probing = Probing(dispatch, pool, scheduler.controller, warmup, changed=self.changed)
        self._meter = meter
        self._loader = loader
        self._warmup = warmup
        self._core = core
        self._closed = False
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, name="wenet-engine", daemon=True)
        self._thread.start()
        self._started.result()

    @property
    def alive(self) -> bool:
        """Whether the thread is there to answer."""
        return self._thread.is_alive()

    @property
    def stuck_s(self) -> float:
        """How long the thread has been at its present run, or has left what waits alone; 0 if nothing is to be done.

        Takes no lock, so that it answers whatever the thread holds.
        """
        if not self.present.requests and not len(self._scheduler):
            return 0.0
        return time.monotonic() - self.present.moved_s  # read after the above: what came in between has set it

    @property
    def stuck(self) -> bool:
        """Whether that is so long that it will not move on by itself."""
        return self.stuck_s > self.present.stuck_after_s

    def give_up_if_stuck(self) -> None:
        """Answer those who would wait for ever behind a run that does not end; `changed` is held.

        The run itself cannot be stopped: an engine's call does not return to this process. A watchdog restarts it.
        """
        if not self.stuck:
            return
        turn_away(self._scheduler.expired(math.inf), NotReady("the engine does not move on: send to another server"))
        running = self.present.assignment
        if running is not None and not self.present.given_up:
            self.present.given_up = True
            self.outages.blame(fault := ModeFault(running.choice.mode_id, STUCK), time.monotonic())
            fail(running.jobs, fault)

    def expect(self, now_s: float) -> None:
        """Something is about to be queued; `changed` is held."""
        if not self.present.requests and not len(self._scheduler):
            self.present.moved_s = now_s

    def close(self, timeout_s: float) -> bool:
        """Finish what waits, then end; False if that takes longer."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def probe_soon(self, mode_id: Optional[str]) -> None:
        """Have a mode run once when nothing waits, the fastest if none is named; `changed` is held."""
        self._probing.ask(mode_id)

    def measure(self, mode_id: str) -> "Future[float]":
        """Have a mode run once when nothing waits; how long that took, ms; `changed` is held."""
        return self._probing.measure(mode_id)

    def refused(self, refusal: Refused) -> None:
        """Have what a refused request wanted loaded, and tell it when to come again."""
        self.bring(refusal.wanted)
        if isinstance(refusal, NotResident) and refusal.wanted is not None:
            refusal.retry_after_ms = self._pool.load_ms(refusal.wanted)

    def bring(self, mode_id: Optional[str]) -> None:
        """Have a mode loaded in the background."""
        if mode_id is not None and self._loader is not None:
            self._loader.want(mode_id)

    def _serve(self) -> None:
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 - handed to the constructor, which raises it
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        while not (self._closed and not len(self._scheduler)):
            # Whatever fails, the thread must outlive it: who waits behind would never be answered.
            try:
                assignment = self._take()
                if assignment is not None:
                    self._answer(assignment)
                elif not self._closed and not self.outages.mend(time.monotonic()):
                    with contextlib.suppress(Exception):  # a request that meets the same failure reports it
                        self.observed_s = self._probing.run() or self.observed_s
            except Exception:  # noqa: BLE001 - see above
                _LOG.exception("the engine's thread met a defect")
                self._give_up()

    def _give_up(self) -> None:
        """Refuse what waits: after a defect nobody knows what to do with it."""
        with self.changed:
            self._scheduler.ended()
            self._settle_refused()
            if self.present.assignment is not None:
                fail(self.present.assignment.jobs, EngineError("the engine's thread met a defect: send again"))
            self.present.fail()
            turn_away(self._scheduler.expired(math.inf), EngineError("the scheduler failed: send again"))

    def _start(self) -> None:
        """Pin this thread and run every mode once or more on it."""
        if self._core is not None:
            pin_this_thread(self._core)
        if self._warmup is not None:
            self._dispatch.warm_up(self._warmup)

    def _take(self) -> "Optional[Assignment[Ask]]":
        """Wait for work; None when a mode is to be tried again or probed, or all is over."""
        with self.changed:
            while True:
                now_s = self.present.moved_s = time.monotonic()
                if not self._closed and self.outages.due(now_s - OVERDUE_S):
                    return None
                found = self._scheduler.next(now_s, self._pool.residency)
                self._settle_refused()
                if isinstance(found, Assignment):
                    live = tuple(job for job in found.jobs if job.work.future.set_running_or_notify_cancel())
                    if live:
                        if len(live) < len(found.jobs):
                            found = replace(found, jobs=live, rows=sum(job.rows for job in live))
                        self._begin(found)
                        return found
                    self._scheduler.ended()
                elif found is not None:
                    self.changed.wait(max(0.0, found - now_s))
                elif self._probing.wanted or self._closed or self.outages.due(now_s):
                    return None
                else:
                    self.changed.wait(self.outages.faults.wait_s(now_s))

    def _begin(self, assignment: "Assignment[Ask]") -> None:
        self.bring(assignment.choice.wanted)
        self.present.begin(assignment, self._scheduler.controller.profiles[assignment.choice.mode_id].p99_ms)

    def _settle_refused(self) -> None:
        """Tell those that were accepted and cannot run any more."""
        for job, error in self._scheduler.refused:
            if isinstance(error, Refused):
                self.refused(error)
            turn_away([job], error)
        self._scheduler.refused.clear()

    def _answer(self, assignment: "Assignment[Ask]") -> None:
        """Run a batch and hand its rows to those who asked."""
        jobs = assignment.jobs
        try:
            run, assignment = self._attempts.run(assignment)
        except Exception as error:  # noqa: BLE001 - the engine thread must outlive any one request
            with self.changed:
                self._scheduler.ended()
                if isinstance(error, Refused):
                    self.refused(error)
                self.present.fail()
            fail(jobs, error)
            return
        with self.changed:
            self._scheduler.ended()
            self.last_mode = hand_out(assignment, run, self._meter.source, self.last_mode, self.present.answered)
            self.present.end()
            if not len(self._scheduler) and not self._closed:
                # What the run taught can wait until its reply has left: both want the interpreter.
                self.changed.wait(SETTLE_S)
            try:
                self._scheduler.finished(assignment, run.start_s, run.end_s, run.energy_mj, run.parts, run.escalated)
                self.observed_s = run.end_s
                self._scheduler.controller.forecast(1)  # the next request finds it made
            except Exception:  # noqa: BLE001 - logged
                # It cost nobody an answer: the engine has given one.
                _LOG.exception("a run's time could not be learned")
