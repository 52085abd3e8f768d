"""The usual home-made controller: a smoothed latency over the budget steps one mode down, far below it one up."""

from benchmarks.simulator.players.base import Given, Setup, Waiting

SMOOTHING = 0.2
DOWN, UP = 1.0, 0.7
COOL_DOWN_S = 1.0


class Reactive:
    """One mode at a time, moved by an average of latency over budget."""

    def __init__(self, setup: Setup) -> None:
        self._mode = self._top = len(setup.device.modes) - 1
        self._average: float | None = None
        self._changed_s = 0.0
        self._running: tuple[float, float] | None = None  # deadline, s; budget, ms
        self._waiting = Waiting()

    def arrive(self, index: int, now_s: float, budget_ms: float, rows: int) -> bool:
        """Accepts everything."""
        self._waiting.add(index, now_s, budget_ms, rows)
        return True

    def next(self, now_s: float) -> Given:
        """The most urgent, with the present mode."""
        waiting = len(self._waiting)
        first = self._waiting.first(now_s)
        for _ in range(waiting - len(self._waiting)):
            self._see(1.5, now_s)  # expired: a client would have seen a time-out
        if first is None:
            return None
        self._running = first[0], first[2]
        return (self._waiting.take(),), self._mode

    def finished(
        self, indexes: tuple[int, ...], mode: int, start_s: float, end_s: float, energy_mj: float | None
    ) -> None:
        """Smooths the latency and moves."""
        assert self._running is not None
        deadline_s, budget_ms = self._running
        self._see(1 + (end_s - deadline_s) * 1e3 / budget_ms, end_s)

    def _see(self, share: float, now_s: float) -> None:
        """Take in a latency as a share of its budget."""
        average = share if self._average is None else self._average + SMOOTHING * (share - self._average)
        self._average = average
        if average > DOWN and self._mode > 0:
            self._move(-1, now_s)
        elif average < UP and self._mode < self._top and now_s - self._changed_s >= COOL_DOWN_S:
            self._move(1, now_s)

    def _move(self, by: int, now_s: float) -> None:
        self._mode += by
        self._average = None  # what another mode took says nothing about this one
        self._changed_s = now_s

    def clock_changed(self, by: float, now_s: float) -> None:
        """Does not listen."""
