"""The runtime: requests in, answers out; a scheduler and an engine thread in between.

Waiting is charged to the request, not hidden.
"""

import time
import weakref
from concurrent.futures import Future
from typing import Callable, Mapping, Optional, Tuple

from wenet_runtime.admission import Job
from wenet_runtime.answers import Ask
from wenet_runtime.budget import Deadline, RequestOptions
from wenet_runtime.cascade import Cascade
from wenet_runtime.dispatch import Dispatch
from wenet_runtime.engine_loop import EngineLoop
from wenet_runtime.engines.base import Tensors
from wenet_runtime.errors import Draining, EngineError, InfeasibleBudget, NotReady, Refused
from wenet_runtime.forecast import Forecast
from wenet_runtime.guard import GuardState
from wenet_runtime.loader import Loader
from wenet_runtime.meters.base import Meter
from wenet_runtime.pool import Pool
from wenet_runtime.power_state import PowerState
from wenet_runtime.prediction import Predictor
from wenet_runtime.profile import Profile
from wenet_runtime.result import Result
from wenet_runtime.scheduler import Scheduler

STOPPING = "the server is shutting down and takes no new work: send to another one"
PROBE_AFTER_S = 0.05


class Runtime:
    """Serves one bundle's modes.

    Args:
        pool: the resident modes.
        scheduler: queues, predicts and chooses; from now on only used by this runtime.
        meter: measures the energy of each inference.
        loader: brings modes that are wanted and not resident; None if all are.
        cascade: the rules that the scheduler's escalation goes by; None without.
        warmup: what the engine thread runs on every resident mode before it takes requests, and on the fastest
            one when a slow device has refused a request; None skips both.
        engine_core: pin the engine thread to this core; None leaves it to the system.
    """

    def __init__(
        self,
        pool: Pool,
        scheduler: "Scheduler[Ask]",
        meter: Meter,
        *,
        loader: Optional[Loader] = None,
        cascade: Optional[Cascade] = None,
        warmup: Optional[Tensors] = None,
        engine_core: Optional[int] = None,
    ) -> None:
        self.pool = pool
        self.controller = scheduler.controller
        self.meter = meter
        self.draining = False
        self._scheduler = scheduler
        self._loader = loader
        self._accepting = True
        self._loop = EngineLoop(
            pool,
            scheduler,
            Dispatch(pool, meter, cascade),
            meter,
            loader=loader,
            warmup=warmup,
            core=engine_core,
        )

    @property
    def active(self) -> Optional[str]:
        """The mode that answered last."""
        return self._loop.last_mode

    @property
    def alive(self) -> bool:
        """Whether the engine's thread is there to answer."""
        return self._loop.alive

    @property
    def stuck_s(self) -> float:
        """How long the engine's thread has not moved on though there was something to do, s."""
        return self._loop.stuck_s

    @property
    def stuck(self) -> bool:
        """Whether that is so long that it will not move on by itself: nothing is answered, and nothing accepted."""
        return self._loop.stuck

    @property
    def stuck_after_s(self) -> float:
        """How long the present run may take before it is called stuck, s."""
        return self._loop.present.stuck_after_s

    @property
    def trouble(self) -> Optional[str]:
        """Why nothing can be answered right now, in a few words; None while something can."""
        if not self.alive:
            return "the engine's thread has ended: restart the daemon"
        if self.stuck:
            return f"the engine has not moved on for more than {self.stuck_after_s:g} s: restart the daemon"
        if self._loop.outages.last is not None:
            return f"mode '{self._loop.outages.last}' fails, and no other is in service"
        return None

    @property
    def faults(self) -> Mapping[Tuple[str, str], int]:
        """How often each mode failed in which way (`faults.KINDS`), by (mode id, kind)."""
        return dict(self._loop.outages.faults.counts)

    @property
    def queue_depth(self) -> int:
        """Requests that wait."""
        return len(self._scheduler)

    @property
    def pending(self) -> int:
        """Requests accepted and not answered yet."""
        with self._loop.changed:
            return len(self._scheduler) + self._loop.present.requests

    @property
    def power(self) -> Optional[PowerState]:
        """What the power budget planned last; None without one."""
        with self._loop.changed:
            return None if self._scheduler.power is None else self._scheduler.power.state

    @property
    def guard(self) -> Optional[GuardState]:
        """What the cascade's guard holds; None without a cascade."""
        with self._loop.changed:
            return None if self._scheduler.escalation is None else self._scheduler.escalation.guard.state

    def submit(self, inputs: Tensors, options: RequestOptions, start_s: float, client: str = "") -> "Future[Result]":
        """Accept a request or refuse it at once.

        Args:
            inputs: every input by name, (batch, …), already checked against the bundle.
            options: what the request asks for.
            start_s: monotonic time of its first byte; its budget counts from there.
            client: who asks, for what is shared out among clients.

        Returns:
            A future. Cancelling it takes the request out of the queue; it fails once it runs.
            It raises what `Controller.choose` raises, `DeadlineExceeded`, or `EngineError`.

        Raises:
            Draining, NotReady, and what `Scheduler.submit` raises.
        """
        if not self._accepting:
            raise Draining(STOPPING)
        if not self._loop.alive:
            raise EngineError("the engine's thread has ended: restart the daemon")
        if self._loop.stuck:
            raise NotReady("the engine does not move on: send to another server")
        now_s = time.monotonic()
        rows = next(iter(inputs.values())).shape[0]
        kind = None
        if self._scheduler.joins:
            shapes = tuple((name, array.shape[1:], array.dtype) for name, array in inputs.items())
            budget = options.budget
            kind = (shapes, options.mode, options.on_miss, budget.energy_mj, budget.min_accuracy)
        job = Job(
            Ask(inputs),
            rows,
            options,
            Deadline(start_s, options.effective_ms),
            now_s,
            client=client,
            kind=kind,
        )
        # Weak, because the job holds the future: together they would hold the inputs until the collector comes.
        waiting = weakref.ref(job)
        job.work.future.add_done_callback(lambda future: self._discard(waiting()) if future.cancelled() else None)
        loop = self._loop
        with loop.changed:
            if not self._accepting:  # since it was looked at above
                raise Draining(STOPPING)
            loop.expect(now_s)
            try:
                choice = self._scheduler.submit(job, now_s, self.pool.residency)
            except Refused as refusal:
                loop.refused(refusal)
                if isinstance(refusal, InfeasibleBudget) and now_s - loop.observed_s > PROBE_AFTER_S:
                    loop.probe_soon(refusal.fastest_mode)
                raise
            loop.bring(choice.wanted)
            loop.changed.notify()
        return job.work.future

    def _discard(self, job: "Optional[Job[Ask]]") -> None:
        if job is not None:
            with self._loop.changed:
                self._scheduler.discard(job, time.monotonic())

    def forecast(self) -> Forecast:
        """What every mode is predicted to take now for one row."""
        with self._loop.changed:
            return self.controller.forecast(1)

    def tick(self) -> None:
        """Let time pass in what counts it: called about once a second, also when nobody asks."""
        with self._loop.changed:
            self._scheduler.tick(time.monotonic())
            self._loop.give_up_if_stuck()

    def observe_overhead(self, overhead_ms: float) -> None:
        """Feed back what a reply took after its inference: it has left."""
        with self._loop.changed:
            self.controller.predictor.observe_overhead(overhead_ms)
            self._loop.changed.notify()  # what its run taught has waited for that

    def tell(self, what: Callable[[Predictor], None]) -> None:
        """Tell the predictor something, from any thread."""
        with self._loop.changed:
            what(self.controller.predictor)

    def measure(self, mode_id: str) -> "Future[float]":
        """Have a resident mode run one row once when nothing waits; the future is how long it took, ms."""
        with self._loop.changed:
            return self._loop.measure(mode_id)

    def recalibrate(self, profiles: Mapping[str, Profile]) -> None:
        """Predict from other profiles from now on. Raises as `Controller.recalibrate`."""
        with self._loop.changed:
            self.controller.recalibrate(profiles)

    def drain(self) -> None:
        """Say to whoever asks that this runtime is about to stop; work is still taken."""
        self.draining = True

    def refuse(self) -> None:
        """Take no new work from now on; what was accepted goes on."""
        self.draining = True
        self._accepting = False

    def close(self, timeout_s: float = 30.0) -> bool:
        """Take no new work, finish what was accepted, free the engines.

        Returns:
            Whether all accepted work was finished in time.
        """
        self.refuse()
        finished = self._loop.close(timeout_s)
        if finished:  # engines in use cannot be freed
            if self._loader is not None:
                self._loader.close()
            self.pool.close()
            self.meter.close()
        return finished
