"""Who decides: what the world asks a player, and what a player may know."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.simulator.device import Device
from wenet_runtime.profile import Profile

Given = tuple[tuple[int, ...], int] | float | None


class Player(Protocol):
    """Decides for one trace. Times are seconds of the simulation; a request is known by its index."""

    def arrive(self, index: int, now_s: float, budget_ms: float, rows: int) -> bool:
        """A request came; whether it is accepted. The engine may be running."""
        ...

    def next(self, now_s: float) -> Given:
        """The engine is free: requests to run together and the mode; or when to ask again; None: nothing to do."""
        ...

    def finished(
        self, indexes: tuple[int, ...], mode: int, start_s: float, end_s: float, energy_mj: float | None
    ) -> None:
        """What was given has run; its energy above idle, whole batch, if the meter answered."""
        ...

    def clock_changed(self, by: float, now_s: float) -> None:
        """The device says that its clock now runs `by` times as fast."""
        ...


@dataclass(frozen=True)
class Setup:
    """What every player knows beforehand.

    Attributes:
        device: the modes; a player reads their names and accuracies, not how disturbances hit them.
        profiles: what was measured on the quiet device, by mode id.
        max_batch: rows that may run together.
    """

    device: Device
    profiles: Mapping[str, Profile]
    max_batch: int = 1

    @property
    def in_order(self) -> Sequence[Profile]:
        """The profiles in the order of the device's modes, the fastest first."""
        return [self.profiles[mode.id] for mode in self.device.modes]

    @property
    def accuracies(self) -> Sequence[float]:
        """Accuracies in the same order."""
        return [mode.accuracy for mode in self.device.modes]


class Waiting:
    """Accepted requests, earliest deadline first; what has expired is dropped, never run."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, float, int]] = []

    def add(self, index: int, now_s: float, budget_ms: float, rows: int) -> None:
        """Take one in."""
        heapq.heappush(self._heap, (now_s + budget_ms / 1e3, index, budget_ms, rows))

    def first(self, now_s: float) -> tuple[float, int, float, int] | None:
        """Deadline (s), index, budget (ms) and rows of the most urgent that has not expired."""
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def take(self) -> int:
        """Take the most urgent out."""
        return heapq.heappop(self._heap)[1]

    def take_rows(self, most: int) -> tuple[int, ...]:
        """Take the most urgent out, and those after it while no more than so many rows come together."""
        _, index, _, rows = heapq.heappop(self._heap)
        taken = [index]
        while self._heap and rows + self._heap[0][3] <= most:
            _, index, _, more = heapq.heappop(self._heap)
            taken.append(index)
            rows += more
        return tuple(taken)

    def __len__(self) -> int:
        return len(self._heap)
