"""The runtime: one engine thread, a deadline queue before it, the decision after queueing.

One thread runs all inferences because a CUDA context belongs to a thread and two inferences on one
small device only delay each other. Waiting is charged to the request, not hidden.
"""

import contextlib
import os
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Optional

from wenet_runtime.admission import DeadlineQueue, Woken
from wenet_runtime.budget import Deadline, RequestOptions
from wenet_runtime.controller import Controller
from wenet_runtime.dispatch import Dispatch
from wenet_runtime.engines.base import Tensors
from wenet_runtime.errors import DeadlineExceeded, Draining, InfeasibleBudget, SettingsError
from wenet_runtime.loader import Loader
from wenet_runtime.meters.base import Meter
from wenet_runtime.policy import Choice
from wenet_runtime.pool import Pool
from wenet_runtime.result import Result

PROBE_AFTER_S = 0.05


@dataclass(eq=False)
class _Work:
    inputs: Tensors
    rows: int
    options: RequestOptions
    deadline: Deadline
    submitted_s: float
    future: "Future[Result]" = field(default_factory=Future)


class Runtime:
    """Serves one bundle's modes.

    Args:
        pool: the resident modes.
        controller: predicts and chooses.
        meter: measures the energy of each inference.
        loader: brings modes that are wanted and not resident; None if all are.
        max_queue: how many requests may wait.
        warmup: what the engine thread runs on every resident mode before it takes requests, and on the fastest
            one when a slow device has refused a request; None skips both.
        engine_core: pin the engine thread to this core; None leaves it to the system.
    """

    def __init__(
        self,
        pool: Pool,
        controller: Controller,
        meter: Meter,
        *,
        loader: Optional[Loader] = None,
        max_queue: int = 64,
        warmup: Optional[Tensors] = None,
        engine_core: Optional[int] = None,
    ) -> None:
        self.pool = pool
        self.controller = controller
        self.meter = meter
        self._loader = loader
        self._dispatch = Dispatch(pool, controller, meter, None if loader is None else loader.want)
        self._queue: DeadlineQueue[_Work] = DeadlineQueue(max_queue)
        self._core = engine_core
        self._warmup = warmup
        self._busy_until_s = 0.0
        self._running = 0
        self._observed_s = 0.0
        self._last_mode: Optional[str] = None
        self.draining = False
        self._accepting = True
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, name="wenet-engine", daemon=True)
        self._thread.start()
        self._started.result()

    @property
    def active(self) -> Optional[str]:
        """The mode that answered last."""
        return self._last_mode

    @property
    def alive(self) -> bool:
        """Whether the engine's thread is there to answer."""
        return self._thread.is_alive()

    @property
    def queue_depth(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def pending(self) -> int:
        """Requests accepted and not answered yet."""
        return len(self._queue) + self._running

    def submit(self, inputs: Tensors, options: RequestOptions, start_s: float) -> "Future[Result]":
        """Accept a request or refuse it at once.

        Args:
            inputs: every input by name, (batch, …), already checked against the bundle.
            options: what the request asks for.
            start_s: monotonic time of its first byte; its budget counts from there.

        Returns:
            A future. Cancelling it takes the request out of the queue; it fails once it runs.
            It raises what `Controller.choose` raises, `DeadlineExceeded`, or `EngineError`.

        Raises:
            Draining, QueueFull, and what `Controller.choose` raises for the predicted wait.
        """
        if not self._accepting:
            raise Draining("the server is shutting down and takes no new work: send to another one")
        now_s = time.monotonic()
        rows = next(iter(inputs.values())).shape[0]
        work = _Work(inputs, rows, options, Deadline(start_s, options.effective_ms), now_s)
        at_s = work.deadline.at_s
        wait_ms = max(0.0, self._busy_until_s - now_s) * 1e3 + self._queue.wait_ms(priority=options.priority, at_s=at_s)
        try:
            choice = self._dispatch.choose(options, work.deadline, rows=rows, now_s=now_s, wait_ms=wait_ms)
        except InfeasibleBudget:
            if now_s - self._observed_s > PROBE_AFTER_S:
                self._queue.wake()
            raise
        work.future.add_done_callback(lambda future: self._queue.discard(work) if future.cancelled() else None)
        self._queue.put(work, priority=options.priority, at_s=at_s, expected_ms=choice.median_ms)
        return work.future

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
        self._queue.close()
        self._thread.join(timeout_s)
        finished = not self._thread.is_alive()
        if finished:  # engines in use cannot be freed
            if self._loader is not None:
                self._loader.close()
            self.pool.close()
            self.meter.close()
        return finished

    def _serve(self) -> None:
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 - handed to the constructor, which raises it
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        while True:
            try:
                work = self._queue.get()
            except Woken:
                # A request that meets the same failure reports it; the thread must outlive a probe.
                with contextlib.suppress(Exception):
                    self._probe()
                continue
            if work is None:
                return
            if not work.future.set_running_or_notify_cancel():
                continue
            self._running = 1
            try:
                result = self._answer(work)
            except Exception as error:  # noqa: BLE001 - the engine thread must outlive any one request
                work.future.set_exception(error)
            else:
                work.future.set_result(result)
            finally:
                self._running = 0
                self._busy_until_s = 0.0

    def _start(self) -> None:
        """Pin this thread and run every mode once or more on it."""
        try:
            if self._core is not None:
                os.sched_setaffinity(0, {self._core})  # 0: this thread alone
        except (OSError, AttributeError) as error:  # no such core, or a system that cannot pin
            reason = getattr(error, "strerror", None) or "this system cannot pin threads"
            raise SettingsError(f"cannot pin the engine to core {self._core}: {reason}") from None
        if self._warmup is not None:
            self._dispatch.warm_up(self._warmup)

    def _probe(self) -> None:
        """Run the fastest mode once, to learn whether the device is still as slow as it was.

        Called when a request was refused and nothing ran lately: without this a device that was slow once
        could refuse every request and so never be seen fast again.
        """
        if self._warmup is None:
            return
        self.controller.doubt()
        mode_id, start_s, end_s = self._dispatch.probe(self._warmup)
        rows = next(iter(self._warmup.values())).shape[0]
        self._observe(mode_id, start_s, end_s, rows)

    def _observe(self, mode_id: str, start_s: float, end_s: float, rows: int) -> None:
        self._observed_s = end_s
        self.controller.observe(mode_id, (end_s - start_s) * 1e3, rows, end_s)

    def _answer(self, work: _Work) -> Result:
        now_s = time.monotonic()
        if work.deadline.left_ms(now_s) <= 0 and (
            work.options.on_miss != "late" or work.options.protocol_ended(work.deadline.elapsed_ms(now_s))
        ):
            raise DeadlineExceeded(
                f"the budget of {work.deadline.limit_ms:g} ms ended while the request waited",
                executed=False,
                budget_ms=work.deadline.limit_ms,
            )

        def chosen(choice: Choice) -> None:
            self._busy_until_s = now_s + choice.median_ms / 1e3

        run = self._dispatch.run(work.inputs, work.options, work.deadline, now_s=now_s, chosen=chosen)
        choice = run.choice
        self._observe(choice.mode_id, run.start_s, run.end_s, work.rows)
        switched = self._last_mode not in (None, choice.mode_id)
        self._last_mode = choice.mode_id
        return Result(
            outputs=run.outputs,
            mode_id=choice.mode_id,
            reason=choice.reason,
            predicted_ms=work.deadline.elapsed_ms(now_s) + choice.median_ms,
            queue_ms=(now_s - work.submitted_s) * 1e3,
            infer_ms=(run.end_s - run.start_s) * 1e3,
            energy_mj=run.energy_mj,
            energy_source=run.energy_source,
            switched=switched,
            finished_s=run.end_s,
        )
