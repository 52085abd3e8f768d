"""A made-up board whose clock only engines move: every configuration has a known time, with or without noise."""

from typing import Any, Callable, Dict, List, Mapping, Optional

import numpy as np
import pytest

from wenet_runtime.bundle import Mode
from wenet_runtime.engines.base import Artifact, Tensors
from wenet_runtime.lowering.graph import Graph, attribute
from wenet_runtime.materialize import Supernet
from wenet_runtime.meters.base import OK, MeterState

FIXED_MS = 1.0
SHUFFLE_MS = 0.4


def true_ms(supernet: Supernet, groups: Mapping[str, int]) -> float:
    """Additive by construction: a fixed part, a term a layer, and one where a shuffle joins two grouped layers."""
    total = FIXED_MS
    for number, layer in enumerate(supernet.layers):
        full_ms = 1e-3 * layer.in_channels * layer.out_channels * (1 + 0.05 * number)
        total += full_ms * (0.2 + 0.8 / groups[layer.name])
    for first, second in zip(supernet.layers[::2], supernet.layers[1::2]):
        if groups[first.name] > 1 and groups[second.name] > 1:
            total += SHUFFLE_MS
    return total


class Board:
    """A backend and the clock beside it.

    Args:
        supernet: made by `tests.supernets.bottlenecks`, so that its layers are convolutions two by two.
        noise: standard deviation of a run's time, as a share.

    Attributes:
        slowdown: factor on everything, now.
        opened: engines that were loaded and are not closed yet; most: of these at any time.
        loads: names of what was loaded.
    """

    name = "board"
    version = "1"

    def __init__(self, supernet: Supernet, noise: float = 0.0, seed: int = 0) -> None:
        self.supernet = supernet
        self.noise = noise
        self.now_s = 0.0
        self.slowdown = 1.0
        self.opened = self.most = 0
        self.loads: List[str] = []
        self._random = np.random.default_rng(seed)
        self._times_ms: Dict[str, float] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "Board":
        """Let what is timed be timed by this board's clock."""
        monkeypatch.setattr("wenet_runtime.profiler.time", self)
        return self

    def perf_counter(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s

    def build(self, graph: Graph, name: str) -> Artifact:
        nodes = {node.name: node for node in graph.nodes}
        groups = {layer.name: int(attribute(nodes[layer.node], "group", 1)) for layer in self.supernet.layers}
        self._times_ms[name] = true_ms(self.supernet, groups)
        return Artifact(b"", {})

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> "BoardEngine":
        artifact()
        self.loads.append(mode.id)
        self.opened += 1
        self.most = max(self.most, self.opened)
        return BoardEngine(self, self._times_ms[mode.id])

    def close(self) -> None:
        assert self.opened == 0, "an engine was left open"

    def spend(self, took_ms: float) -> None:
        noisy = took_ms * (1 + self.noise * abs(float(self._random.normal())))
        self.now_s += noisy * self.slowdown / 1e3


class BoardEngine:
    """A configuration that takes its time and answers nothing."""

    def __init__(self, board: Board, took_ms: float) -> None:
        self._board = board
        self._took_ms = took_ms
        self._closed = False

    def infer(self, inputs: Tensors) -> Dict[str, Any]:
        self._board.spend(self._took_ms)
        return {}

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._board.opened -= 1


class WattMeter:
    """Energy at so many watts by the board's clock, or nothing."""

    def __init__(self, watts: Optional[float] = 5.0, source: str = "rail:test") -> None:
        self.source = source
        self._watts = watts

    def energy_mj(self, start_s: float, end_s: float) -> Optional[float]:
        return None if self._watts is None else self._watts * (end_s - start_s) * 1e3

    def power(self) -> None:
        return None

    def state(self) -> MeterState:
        return MeterState(OK)

    def close(self) -> None:
        return None
