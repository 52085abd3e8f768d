"""What a run leaves to others: those who wait already, and those who may come."""

import itertools
import math
from typing import AbstractSet, Any, Callable, Dict, Optional, Sequence, Tuple

from wenet_runtime.admission import DeadlineQueue, Job, Work
from wenet_runtime.arrivals import Arrivals
from wenet_runtime.backlog_value import BacklogValue, Traffic, solve
from wenet_runtime.batching import Batching
from wenet_runtime.controller import Controller
from wenet_runtime.pareto import upper_hull

Future = Callable[[float], float]


def here_and_now(work: Callable[[], None]) -> None:
    """Plans without a thread."""
    work()


class Outlook:
    """Looks at a queue from the side of the job that is to run.

    Args:
        controller: predicts.
        batching: which jobs run together.
        plan: runs what may take some milliseconds, here or elsewhere.
    """

    def __init__(
        self,
        controller: Controller,
        batching: Batching,
        plan: Callable[[Callable[[], None]], None] = here_and_now,
    ) -> None:
        self._controller = controller
        self._batching = batching
        self._plan = plan
        self._arrivals = Arrivals(controller.attainment)
        self._value: Optional[BacklogValue] = None
        # Of an idle device: near enough for those who wait.
        idle = controller.forecast(1)
        self._hull = upper_hull(list(zip(idle.idles_ms, idle.accuracies)))

    def arrived(self, job: Job[Work], queue: DeadlineQueue[Work], present: int, now_s: float) -> None:
        """Take in an arrival, the queue before it, and how many jobs wait or run with it."""
        # A full queue hurried through is the longest that anybody can wait, whatever time there is.
        most_ms = (queue.capacity + 1) * min(self._controller.forecast(1).medians_ms)
        left_ms = min(job.deadline.left_ms(now_s), most_ms)
        full = len(queue) >= queue.capacity - max(1, queue.capacity // 8)  # or as good as full
        self._arrivals.came(left_ms, None if full else present, now_s)

    def missed(self) -> None:
        """A request was refused or expired because others were before it."""
        self._arrivals.ended(False)

    def answered(self, job: Job[Work], end_s: float) -> None:
        """Take in when a job ended; plan anew when it is time."""
        in_time = end_s <= job.deadline.at_s
        # Who had nobody before it and was late met a slower device.
        if in_time or job.waited:
            self._arrivals.ended(in_time)
        traffic = self._arrivals.traffic(self._controller.forecast(1))
        if traffic is not None:
            self._plan(lambda: self._solve(traffic))

    def _solve(self, traffic: Traffic) -> None:
        self._value = solve(traffic, self._value)

    def ahead(
        self, queue: DeadlineQueue[Work], job: Job[Work], own_ms: float, busy_ms: float, now_s: float
    ) -> Tuple[float, bool]:
        """The work that would run before a job if all of it were hurried, ms; and whether the job would then make
        one behind it, of its own priority, miss a deadline that it meets without.
        """
        if not len(queue):
            return busy_ms, False
        work = _Work(self._controller, self._batching)
        waiting = iter(queue)
        for one in itertools.islice(waiting, queue.place(job)):
            work.add(one)
        ahead_ms = busy_ms + work.ms
        for one in waiting:
            if one.options.priority != job.options.priority:
                break
            work.add(one)
            work_ms = busy_ms + work.ms
            left_ms = (one.ends_s - now_s) * 1e3 - self._controller.forecast(one.rows).reply_ms
            if work_ms <= left_ms < work_ms + own_ms:
                return ahead_ms, True
        return ahead_ms, False

    def room_ms(self, queue: DeadlineQueue[Work], jobs: Sequence[Job[Work]], rows: int, now_s: float) -> float:
        """What a run of these jobs may take so that the others, all of them hurried, still meet their deadlines."""
        if not len(queue):
            return math.inf
        controller = self._controller
        together: AbstractSet[int] = {id(job) for job in jobs} if len(jobs) > 1 else frozenset()
        forecast = controller.forecast(rows)
        least_ms = forecast.medians_ms[jobs[0].fastest_at]
        room_ms, work_ms = math.inf, 0.0
        for job in queue:
            if together and id(job) in together:
                continue
            if job.rows != rows:
                rows = job.rows
                forecast = controller.forecast(rows)
            median_ms = forecast.medians_ms[job.fastest_at]
            slack_ms = (job.ends_s - now_s) * 1e3 - work_ms - median_ms
            work_ms += median_ms - forecast.reply_ms
            # What not even the fastest run before it can save does not hold the others back.
            if slack_ms >= least_ms:
                room_ms = min(room_ms, slack_ms + median_ms - forecast.bounds_ms[job.fastest_at])
        return room_ms

    def future(self, waiting: int, last_ms: float, now_s: float) -> Optional[Future]:
        """What the future is worth, in accuracy, by the time that the next run takes.

        Args:
            waiting: how many wait behind it.
            last_ms: time left to the last of them.
            now_s: the time.

        Returns:
            None while too little is known, or where clients send only once they are answered.
        """
        if self._value is None or self._arrivals.returning:
            return None
        behind = self._value.behind(self._arrivals.age_ms(now_s))
        if not waiting:
            return behind.after(0.0)
        # Those who wait are reckoned to share one mode, the one that is best for them and the future together.
        forecast = self._controller.forecast(1)
        fastest_ms = min(forecast.medians_ms) - forecast.reply_ms
        worth = behind.after(fastest_ms)
        best, rest_ms = -math.inf, waiting * fastest_ms
        for at in self._hull:
            work_ms = waiting * (forecast.medians_ms[at] - forecast.reply_ms)
            if work_ms + fastest_ms <= last_ms:
                value = waiting * forecast.accuracies[at] + worth(work_ms)
                if value > best:
                    best, rest_ms = value, work_ms
        return behind.after(rest_ms)


class _Work:
    """What waiting jobs keep the engine at the least, all of them hurried, in batches where that pays."""

    def __init__(self, controller: Controller, batching: Batching) -> None:
        self._controller = controller
        self._batching = batching
        self._kinds: Dict[Any, Tuple[int, float]] = {}  # rows, and how long they take
        self.ms = 0.0

    def add(self, job: Job[Work]) -> None:
        """One more of them."""
        if not self._batching.pays(job, self._controller):
            self.ms += self._batching.service_ms(job, job.rows, self._controller)
            return
        rows, before_ms = self._kinds.get(job.kind, (0, 0.0))
        now_ms = self._batching.service_ms(job, rows + job.rows, self._controller)
        self._kinds[job.kind] = rows + job.rows, now_ms
        self.ms += now_ms - before_ms
