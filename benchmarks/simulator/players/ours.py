"""Ours: the daemon's own scheduler and controller, driven by the simulation instead of threads and clocks."""

from benchmarks.simulator.players.base import Given, Setup
from wenet_runtime.admission import Job
from wenet_runtime.assignment import Assignment
from wenet_runtime.batching import Batching
from wenet_runtime.budget import Budget, Deadline, RequestOptions
from wenet_runtime.controller import Controller
from wenet_runtime.errors import Refused
from wenet_runtime.scheduler import Scheduler

KEPT_BUDGETS = 1024


class Ours:
    """The adapter.

    Args:
        setup: what it knows.
        attainment: the share of requests that must meet their deadline.
        max_queue: how many may wait.
        max_delay_ms: how long a request may wait for company in a batch.
    """

    def __init__(self, setup: Setup, attainment: float, *, max_queue: int = 1024, max_delay_ms: float = 0.0) -> None:
        device = setup.device
        self._mode_at = {mode.id: number for number, mode in enumerate(device.modes)}
        self.controller = Controller(device.bundle_modes(), setup.profiles, attainment, idle_w=device.idle_w)
        self.scheduler: Scheduler[int] = Scheduler(
            self.controller,
            max_queue=max_queue,
            batching=Batching(setup.max_batch, max_delay_ms) if setup.max_batch > 1 else None,
        )
        self._idle_w = device.idle_w
        self._kind = "any" if setup.max_batch > 1 else None  # every request may go with every other
        self._options: dict[float, RequestOptions] = {}
        self._running: Assignment[int] | None = None

    def arrive(self, index: int, now_s: float, budget_ms: float, rows: int) -> bool:
        """Submit it, as the service does."""
        options = self._options.get(budget_ms)
        if options is None:
            if len(self._options) >= KEPT_BUDGETS:
                self._options.clear()
            options = self._options[budget_ms] = RequestOptions(Budget(latency_ms=budget_ms))
        job = Job(index, rows, options, Deadline(now_s, budget_ms), now_s, kind=self._kind)
        try:
            self.scheduler.submit(job, now_s)
        except Refused:
            return False
        return True

    def next(self, now_s: float) -> Given:
        """Ask the scheduler, as the engine's thread does; what the daemon's timers would take out goes first."""
        scheduler = self.scheduler
        if len(scheduler) > 1:
            scheduler.expired(now_s)
        given = scheduler.next(now_s)
        if scheduler.refused:
            scheduler.refused.clear()
        if isinstance(given, Assignment):
            self._running = given
            return tuple(job.work for job in given.jobs), self._mode_at[given.choice.mode_id]
        return given

    def finished(
        self, indexes: tuple[int, ...], mode: int, start_s: float, end_s: float, energy_mj: float | None
    ) -> None:
        """Feed the run back; the meter sees the whole board."""
        assert self._running is not None
        whole_mj = None if energy_mj is None else energy_mj + self._idle_w * (end_s - start_s) * 1e3
        self.scheduler.finished(self._running, start_s, end_s, whole_mj)

    def clock_changed(self, by: float, now_s: float) -> None:
        """Tell the predictor, as the watch on the device's clock does."""
        self.controller.predictor.clock_changed(by)
