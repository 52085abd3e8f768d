"""A server of one single mode: accepts everything, drops what has expired."""

from benchmarks.simulator.players.base import Given, Waiting


class Static:
    """Always the same mode; with mode 0, always the smallest."""

    def __init__(self, mode: int) -> None:
        self._mode = mode
        self._waiting = Waiting()

    def arrive(self, index: int, now_s: float, budget_ms: float, rows: int) -> bool:
        """Accepts everything."""
        self._waiting.add(index, now_s, budget_ms, rows)
        return True

    def next(self, now_s: float) -> Given:
        """The most urgent."""
        if self._waiting.first(now_s) is None:
            return None
        return (self._waiting.take(),), self._mode

    def finished(
        self, indexes: tuple[int, ...], mode: int, start_s: float, end_s: float, energy_mj: float | None
    ) -> None:
        """Learns nothing."""

    def clock_changed(self, by: float, now_s: float) -> None:
        """Does not listen."""
