"""What does lowering make of the arithmetic that weight-enabling saves, and which modes still deserve to exist?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Arguments, Figure, Measured, at_most, reported, run
from benchmarks.floors import by_operator, floor_ms, kernel_times_ms
from benchmarks.networks import NETWORKS, macs, make_torch, random_groups, uniform, without_shuffles
from benchmarks.variants import deviation, interleaved, naive, rivals
from wenet_runtime.engines.base import Engine
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.plan import Plan
from wenet_runtime.profiler import load_graph, quickest_ms
from wenet_trainer.topology import INPUT, describe

QUESTION = "How near do modes come to their arithmetic, and which of them do their rivals leave a reason to exist?"
LEVELS = (2, 4, 8, 16)
CONFIGURATIONS = 50
EXACT = 1e-5
FULL = "full, shuffles lowered"
STOCK = "full, no shuffle"

# Goals: over limit A, and as a share of the full network without shuffles.
OVER_LIMIT = {"resnet50": {2: 1.05, 4: 1.12, 8: 1.35, 16: 1.75}}
SHARE = {"mobilenet_v2": {2: 0.80, 4: 0.70, 8: 0.62, 16: 0.55}, "efficientnet_b0": {16: 0.55}}
OVER_FLOOR = 1.25

Images = Mapping[str, NDArray[Any]]


def measure(arguments: Arguments) -> Measured:
    """Every network in turn; all ways to run one are timed interleaved."""
    figures: dict[str, Figure] = {}
    samples: dict[str, Any] = {}
    size = 64 if arguments.quick else 224
    for name in NETWORKS[1:2] if arguments.quick else NETWORKS:
        bench = _Bench(name, size, arguments)
        figures.update(bench.exactness(2 if arguments.quick else CONFIGURATIONS))
        figures.update(bench.times())
        samples[name] = bench.samples
    return figures, samples


class _Bench:
    """One network on this machine, one thread, batch 1."""

    def __init__(self, name: str, size: int, arguments: Arguments) -> None:
        self.name = name
        self.quick = arguments.quick
        self.seed = arguments.seed
        self.levels = LEVELS[-1:] if arguments.quick else LEVELS
        self.net = make_torch(name, arguments.seed)
        self.size = size
        self.supernet = describe(self.net, (3, size, size))
        self.stock = without_shuffles(self.supernet)
        self.backend = OrtBackend()
        rounds = 2 if arguments.quick else 15
        self.plan = Plan(
            self.supernet,
            lambda graphs: quickest_ms(self.backend, graphs, rounds=rounds),
        )
        random = np.random.default_rng(arguments.seed)
        self.inputs: Images = {INPUT: random.normal(size=(1, 3, size, size)).astype(np.float32)}
        self.samples: dict[str, Any] = {}

    def engine(self, groups: Mapping[str, int], emitted: Mapping[str, int], name: str) -> Engine:
        """A configuration as the daemon would run it."""
        return load_graph(self.backend, lower(self.supernet, groups, emitted=emitted), name)

    def exactness(self, configurations: int) -> dict[str, Figure]:
        """Random configurations in random emissions, every pass on, against every pass off; and controls."""
        choose = np.random.default_rng(self.seed)
        worst, controls = 0.0, []
        for number in range(configurations):
            groups = random_groups(self.supernet, number)
            emitted = {one: int(count / choose.choice([1, 2, count])) or 1 for one, count in groups.items()}
            expected = self._answer(naive(self.supernet, groups, "reference"))
            worst = max(worst, deviation(self._answer(self.engine(groups, emitted, "lowered")), expected))
            if number < 3:
                controls += [deviation(self._answer(wrong), expected) for wrong in self._wrong(groups)]
        how = f"{configurations} random configurations, random emissions, all passes on against off, fp32"
        return {
            f"{self.name}: largest deviation": at_most(worst, EXACT, "of the largest answer", how),
            f"{self.name}: least deviation of a control": reported(
                min(controls), "of the largest answer", "a shuffle dropped; another configuration's batch norms"
            ),
        }

    def _wrong(self, groups: Mapping[str, int]) -> list[Engine]:
        """Two lowerings that are wrong: without the shuffles, and with one layer's norms of another pattern."""
        graph = lower(self.stock, groups)
        name = next(one for one, count in groups.items() if count > 1)
        other = lower(_with_other_norms(self.supernet, name, groups[name]), groups)
        return [load_graph(self.backend, one, "wrong") for one in (graph, other)]

    def _answer(self, engine: Engine) -> Images:
        answer = engine.infer(self.inputs)
        engine.close()
        return answer

    def times(self) -> dict[str, Figure]:
        """Medians of one interleaved run, and what they come to."""
        engines: dict[str, Engine] = {}
        full = uniform(self.supernet, 1)
        engines[STOCK] = load_graph(self.backend, lower(self.stock, full), STOCK)
        emissions = {level: self.plan.settled(uniform(self.supernet, level)) for level in (1, *self.levels)}
        engines[FULL] = self.engine(full, emissions[1], FULL)
        for level in self.levels:
            groups = uniform(self.supernet, level)
            engines[f"1/{level}, lowered"] = self.engine(groups, emissions[level], f"g{level}")
        for level in (1, *self.levels):
            groups = uniform(self.supernet, level)
            engines[f"1/{level}, naive"] = naive(self.supernet, groups, f"g{level}")
        configurations = {f"1/{level}": uniform(self.supernet, level) for level in (1, *self.levels)}
        engines.update(rivals(self.net, self.supernet, self.inputs, configurations, quick=self.quick))
        taken = interleaved(engines, self.inputs, rounds=2 if self.quick else 21, seed=self.seed)
        medians = {name: float(np.median(values)) for name, values in taken.items()}
        self.samples["median_ms"] = {name: round(value, 4) for name, value in medians.items()}
        self.samples["emitted"] = {f"1/{level}": emission for level, emission in emissions.items()}
        figures = self._ratios(medians, emissions)
        for engine in engines.values():
            engine.close()
        return figures

    def _ratios(self, medians: Mapping[str, float], emissions: Mapping[int, Mapping[str, int]]) -> dict[str, Figure]:
        stock_ms = medians[STOCK]
        figures = {
            f"{self.name}: full network over the same without shuffles": _judged(
                medians[FULL] / stock_ms, 1.01, "x", "medians of one interleaved run", self.quick
            ),
            f"{self.name}: full network without shuffles": reported(
                stock_ms, "ms", "ONNX Runtime, one thread, batch 1"
            ),
        }
        stock_graph = lower(self.stock, uniform(self.stock, 1))
        runs = 2 if self.quick else 20
        kernels = kernel_times_ms(stock_graph, self.inputs, runs=runs)
        profiled_ms = sum(taken for _, taken in kernels.values())
        self.samples["operators_ms"] = {"full": by_operator(kernels)}
        full_macs = macs(self.net, uniform(self.supernet, 1), self.size)
        for level in self.levels:
            groups = uniform(self.supernet, level)
            mode_ms = medians[f"1/{level}, lowered"]
            limit_ms = stock_ms * macs(self.net, groups, self.size) / full_macs
            # Kernels were timed in a run of their own, under the profiler: scaled to this one.
            floor = floor_ms(stock_graph, kernels, self.stock, groups) * stock_ms / profiled_ms
            label = f"{self.name} 1/{level}"
            figures[f"{label}: share of the full network"] = _judged(
                mode_ms / stock_ms,
                SHARE.get(self.name, {}).get(level),
                "x",
                "against the full network, no shuffle",
                self.quick,
            )
            figures[f"{label}: over limit A"] = _judged(
                mode_ms / limit_ms, OVER_LIMIT.get(self.name, {}).get(level), "x", f"A = {limit_ms:.3f} ms", self.quick
            )
            goal = OVER_FLOOR if self.name in SHARE else None
            figures[f"{label}: over floor B"] = _judged(mode_ms / floor, goal, "x", f"B = {floor:.3f} ms", self.quick)
            figures[f"{label}: naive over lowered"] = reported(
                medians[f"1/{level}, naive"] / mode_ms, "x", "the usual export, every shuffle an operator"
            )
            self.samples["operators_ms"][f"1/{level}"] = by_operator(
                kernel_times_ms(lower(self.supernet, groups, emitted=emissions[level]), self.inputs, runs=runs)
            )
        return figures


def _judged(value: float, goal: float | None, unit: str, how: str, quick: bool) -> Figure:
    return reported(value, unit, how) if goal is None or quick else at_most(value, goal, unit, how)


def _with_other_norms(supernet: Supernet, layer: str, groups: int) -> Supernet:
    """The supernet with the full pattern's batch norms in the place of one layer's own."""
    weights = dict(supernet.weights)
    for norm in supernet.norms:
        if norm.layer == layer:
            own, full = norm.patterns[groups], norm.patterns[1]
            for part in ("weight", "bias", "mean", "var"):
                weights[getattr(own, part)] = supernet.weights[getattr(full, part)]
    return Supernet(supernet.topology, supernet.inputs, supernet.layers, supernet.norms, supernet.shuffles, weights)


if __name__ == "__main__":
    run("lowering", QUESTION, measure, needs_bundle=False)
