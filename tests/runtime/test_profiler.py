"""Profiling: every engine in every round, nothing counted twice, energy only when a meter knows."""

from typing import Any, Dict, List, Tuple

import numpy as np
import pytest

from tests.runtime.fakes import ones
from tests.runtime.nets import Net
from wenet_runtime import profiler
from wenet_runtime.engines.base import Tensors
from wenet_runtime.errors import EngineError
from wenet_runtime.meters.base import OK, MeterState
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.meters.sim import SimMeter
from wenet_runtime.profiler import READINGS, batch_medians, energy_mj, measure, quickest_ms, sample


class Clock:
    """A clock that engines move by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    monotonic = perf_counter


class TimedEngine:
    """Takes a given time on the clock and records that it ran."""

    def __init__(self, name: str, seconds: float, clock: Clock, runs: List[str]) -> None:
        self._name, self._seconds, self._clock, self._runs = name, seconds, clock, runs

    def infer(self, inputs: Tensors) -> Dict[str, Any]:
        self._runs.append(self._name)
        self._clock.now_s += self._seconds
        return {}

    def close(self) -> None:
        self._runs.append(f"{self._name} closed")


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> "Tuple[Dict[str, TimedEngine], List[str]]":
    clock, runs = Clock(), []  # type: ignore[var-annotated]
    monkeypatch.setattr(profiler, "time", clock)
    return {name: TimedEngine(name, ms / 1e3, clock, runs) for name, ms in (("a", 1.0), ("b", 5.0))}, runs


def test_every_engine_runs_once_a_round_after_its_warm_up(engines: Any) -> None:
    ready, runs = engines
    told: List[Tuple[int, int]] = []
    samples = sample(
        ready, {"input": ones()}, rounds=8, warmup=2, progress=lambda done, total: told.append((done, total))
    )
    assert runs[:4] == ["a", "a", "b", "b"]
    rounds = [runs[at : at + 2] for at in range(4, len(runs), 2)]
    assert [sorted(one) for one in rounds] == [["a", "b"]] * 8
    assert ["b", "a"] in rounds  # the order is not always the same
    assert ["a", "b"] in rounds
    assert np.allclose(samples["a"], 1.0)
    assert np.allclose(samples["b"], 5.0)
    assert told[-1] == (8, 8)


def test_the_same_seed_takes_the_same_order(engines: Any) -> None:
    ready, runs = engines
    sample(ready, {"input": ones()}, rounds=8, seed=5)
    first = list(runs)
    runs.clear()
    sample(ready, {"input": ones()}, rounds=8, seed=5)
    assert runs == first


def test_figures_are_per_row(engines: Any) -> None:
    profiles = measure(engines[0], {"input": ones(rows=4)}, rounds=5)
    assert profiles["b"].p50_ms == pytest.approx(1.25)
    assert profiles["b"].runs == 5


def test_energy_is_measured_per_row_when_the_meter_knows(engines: Any) -> None:
    profiles = measure(engines[0], {"input": ones(rows=4)}, rounds=5, meter=SimMeter(busy_w=2.0))
    assert profiles["b"].energy_mj == pytest.approx(2.5)  # 2 W for 5 ms, four rows
    assert profiles["b"].energy_source == "sim"


class SlowMeter(SimMeter):
    """Has a reading every 4 ms."""

    def state(self) -> MeterState:
        return MeterState(OK, interval_s=0.004)


def test_energy_is_measured_for_as_long_as_the_meter_takes_for_enough_readings(engines: Any) -> None:
    ready, runs = engines
    profiles = measure({"b": ready["b"]}, {"input": ones()}, rounds=5, warmup=0, meter=SlowMeter(busy_w=2.0))
    assert profiles["b"].energy_mj == pytest.approx(10.0)  # 2 W for 5 ms
    assert len(runs) == 5 + READINGS * 4 / 5


@pytest.mark.parametrize("meter", [None, NoMeter()])
def test_energy_stays_unknown_when_nobody_knows(engines: Any, meter: Any) -> None:
    profiles = measure(engines[0], {"input": ones()}, rounds=5, meter=meter)
    assert (profiles["a"].energy_mj, profiles["a"].energy_source) == (None, "none")


def test_energy_is_the_mean_of_back_to_back_runs(engines: Any) -> None:
    ready, runs = engines
    assert energy_mj(ready["b"], {"input": ones()}, SimMeter(busy_w=2.0), runs=4) == pytest.approx(10.0)
    assert runs == ["b"] * 4
    assert energy_mj(ready["b"], {"input": ones()}, NoMeter(), runs=1) is None


def test_energy_takes_runs_until_a_meter_can_resolve_them_and_none_without_a_meter(engines: Any) -> None:
    ready, runs = engines
    spent = energy_mj(ready["b"], {"input": ones()}, SimMeter(busy_w=2.0), runs=2, least_s=0.018)
    assert spent == pytest.approx(10.0)
    assert runs == ["b"] * 4  # 5 ms each
    assert energy_mj(ready["b"], {"input": ones()}, None, runs=2) is None
    assert energy_mj(ready["b"], {"input": ones()}, NoMeter(), runs=2) is None
    assert len(runs) == 4


def test_whole_batches_are_made_of_the_rows_that_are_there() -> None:
    seen: List[Any] = []

    class Engine:
        def infer(self, inputs: Tensors) -> Dict[str, Any]:
            seen.append(inputs["input"].copy())
            return {}

        def close(self) -> None:
            raise AssertionError("it is not ours")

    told: List[Tuple[int, int]] = []
    rows = np.arange(2 * 3, dtype=np.float32).reshape(2, 3)
    found = batch_medians({"a": Engine()}, {"input": rows}, [1, 5], rounds=2, progress=lambda *done: told.append(done))
    assert list(found["a"]) == [1, 5]
    assert {one.shape[0] for one in seen} == {1, 5}
    assert np.array_equal(seen[-1], rows[[0, 1, 0, 1, 0]])
    assert seen[-1].dtype == np.float32
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_batch_times_are_of_the_whole_batch(engines: Any) -> None:
    found = batch_medians(engines[0], {"input": ones()}, [4], rounds=3)
    assert found == {"a": {4: pytest.approx(1.0)}, "b": {4: pytest.approx(5.0)}}


def test_a_network_that_does_not_build_leaves_no_engine_open() -> None:
    opened: List[str] = []

    class Engine:
        def infer(self, inputs: Any) -> Any:
            return {}

        def close(self) -> None:
            opened.pop()

    class Backend:
        def build(self, graph: Any, name: str) -> Any:
            if name.endswith("2"):
                raise EngineError("this one not")
            return None

        def load(self, mode: Any, artifact: Any) -> Any:
            opened.append(mode.id)
            return Engine()

    net = Net(16)
    graph = net.graph([net.op("Relu", ["input"], "r")])
    with pytest.raises(EngineError, match="this one not"):
        quickest_ms(Backend(), [graph, graph, graph])  # type: ignore[arg-type]
    assert opened == []


def test_a_network_whose_sizes_are_open_cannot_be_tried() -> None:
    net = Net(16)
    graph = net.graph([net.op("Relu", ["input"], "r")])
    graph.inputs[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(EngineError, match="no fixed size"):
        quickest_ms(None, [graph])  # type: ignore[arg-type]
