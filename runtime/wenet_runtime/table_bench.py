"""Measures one configuration at a time, interleaved with the full network, on the engine that will serve."""

from contextlib import closing
from typing import Callable, Dict, Mapping, Optional

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.engines.base import Backend, Engine, Tensors
from wenet_runtime.errors import EngineError
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.meters.base import Meter
from wenet_runtime.profiler import energy_mj, load_graph, sample
from wenet_runtime.table_rows import Row

Emitted = Callable[[Mapping[str, int]], Mapping[str, int]]
Progress = Callable[[int, int], None]

ROUNDS = 15  # runs of each of the two, before another look at whether they suffice
MOST_TIMES = 4  # so often, at most
AGREE = 0.02  # two halves of a row's runs that agree so far suffice: the whole is then good to half of it
QUIET = 25  # percentile of the runs that stands for a machine with nothing else to do
DRIFT = 0.15  # of the full network's time, beyond which a row waits
WAIT_S, WAITS = 3.0, 10  # in all, since a network whose own noise is that large would wait before every row
PRIMED = 1  # runs before each one that counts; whole modes are profiled so too
TIMING = f"primed {PRIMED}"  # tables of another way of timing do not mean the same
ENERGY_S = 0.3  # of back-to-back runs, which a meter can resolve


class TableBench:
    """The full network, opened when it is first needed, and one configuration at a time beside it.

    Args:
        supernet: the network.
        backend: the engine that will serve.
        emitted: with how many groups a configuration's layers are computed, where not with their own.
        rounds: runs behind a row at least; `MOST_TIMES` as many at most.
        meter: where energy comes from, if anything tells.
        seed: of the order of runs.
    """

    def __init__(
        self, supernet: Supernet, backend: Backend, emitted: Emitted, *, rounds: int, meter: Optional[Meter], seed: int
    ) -> None:
        self._supernet = supernet
        self._backend = backend
        self._emitted = emitted
        self._rounds = rounds
        self._meter = meter if meter is not None and meter.source != "none" else None
        self._seed = seed
        self._full: Optional[Engine] = None
        self._inputs: Tensors = {}
        self._waited = 0

    def row(self, groups: Mapping[str, int], number: int) -> Row:
        """Measure one configuration; `number` makes the order of its runs its own."""
        full = self._opened()
        with closing(self._engine(groups, f"configuration {number}")) as engine:
            taken = self._taken({"full": full, "it": engine}, number)
            energies = [self._spent_mj(one) for one in (engine, full)]
        ratio = _quiet(taken["it"]) / _quiet(taken["full"])
        it_ms, full_ms = (round(float(np.median(taken[name])), 6) for name in ("it", "full"))
        quiet_ms, runs = round(_quiet(taken["full"]), 6), len(taken["it"])
        return Row(dict(groups), round(ratio, 6), it_ms, full_ms, quiet_ms, runs, energies[0], energies[1])

    def settled(self, first_ms: float, pause: Callable[[float], None]) -> bool:
        """Wait while the full network is slower or faster than it was at first; False when it stays so.

        Args:
            first_ms: rows' `full_quiet_ms` when measuring began.
            pause: waits, in seconds; called `WAITS` times at most by one bench.
        """
        full = self._opened()
        while True:
            # Warm, since a pause cools the caches; and when nothing else runs, since that alone is not drift.
            taken = sample({"full": full}, self._inputs, rounds=self._rounds, warmup=3, primed=PRIMED)["full"]
            if abs(_quiet(taken) / first_ms - 1) <= DRIFT:
                return True
            if self._waited == WAITS:
                return False
            self._waited += 1
            pause(WAIT_S)

    def meter_answers(self) -> bool:
        """Whether the meter tells what the full network's runs take; it runs for a moment."""
        return self._meter is not None and bool(self._spent_mj(self._opened()))

    def close(self) -> None:
        """Free the full network's engine."""
        if self._full is not None:
            self._full.close()

    def _opened(self) -> Engine:
        if self._full is None:
            self._full = self._engine({layer.name: 1 for layer in self._supernet.layers}, "the full network")
        return self._full

    def _engine(self, groups: Mapping[str, int], name: str) -> Engine:
        graph = lower(self._supernet, groups, emitted=self._emitted(groups))
        if not self._inputs:
            try:
                self._inputs = graph.one_row(np.random.default_rng(0))
            except ValueError as error:
                raise EngineError(f"this network cannot be tried: {error}") from None
        return load_graph(self._backend, graph, name)

    def _taken(self, engines: Mapping[str, Engine], number: int) -> Dict[str, NDArray[np.float64]]:
        """Milliseconds of both, until two halves of the runs agree about their ratio."""
        taken: Dict[str, NDArray[np.float64]] = {}
        for turn in range(MOST_TIMES):
            order = self._seed + 1_000 * number + turn
            warmup = 2 if turn == 0 else 0
            more = sample(engines, self._inputs, rounds=self._rounds, warmup=warmup, primed=PRIMED, seed=order)
            taken = {name: np.concatenate([taken.get(name, values[:0]), values]) for name, values in more.items()}
            halves = [
                _quiet(taken["it"][at::2]) / _quiet(taken["full"][at::2]) for at in (0, 1) if len(taken["it"]) > at
            ]
            if max(halves) / min(halves) - 1 <= AGREE:
                break
        return taken

    def _spent_mj(self, engine: Engine) -> Optional[float]:
        spent = energy_mj(engine, self._inputs, self._meter, runs=3, least_s=ENERGY_S)
        return None if spent is None else round(spent, 6)


def _quiet(taken_ms: NDArray[np.float64]) -> float:
    """What a run takes when nothing disturbs it; other work only ever adds to it."""
    return float(np.percentile(taken_ms, QUIET))
