"""Emitted groups follow measurements, never change an answer, and are measured once."""

import dataclasses
from typing import Dict, List, Mapping, Sequence

import numpy as np
import pytest

from tests.supernets import SupernetBuilder, bottlenecks, images, make_supernet, random_groups, run, uniform
from wenet_runtime.errors import EngineError
from wenet_runtime.lowering.fold_shuffle import reduce_shuffles
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.lowering.operators import layer_channels
from wenet_runtime.materialize import Supernet, lower, materialize
from wenet_runtime.plan import Figures, Plan


class Clock:
    """A made-up host: its time follows from the groups of the convolutions it is given."""

    def __init__(self, cost: "Mapping[int, float]", fixed_ms: float = 1.0) -> None:
        self.cost = cost
        self.fixed_ms = fixed_ms
        self.measured = 0

    def __call__(self, graphs: Sequence[Graph]) -> List[float]:
        self.measured += len(graphs)
        return [self.fixed_ms + sum(self._ms(graph)) for graph in graphs]

    def _ms(self, graph: Graph) -> List[float]:
        found = []
        for node in graph.nodes:
            if node.op_type == "Conv":
                groups, inputs, outputs = layer_channels(graph, node)
                if groups < inputs:  # depthwise costs nothing here
                    found.append(self.cost.get(groups, 1.0) * inputs * outputs / 1000)
        return found


CHEAP_AT_FOUR = Clock({1: 1.0, 2: 0.6, 4: 0.2, 8: 0.5, 16: 0.5})


def convolutions(supernet: Supernet, chosen: Mapping[str, int]) -> Dict[str, int]:
    kinds = {layer.name: layer.kind for layer in supernet.layers}
    return {name: count for name, count in chosen.items() if kinds[name] == "conv"}


def test_layers_are_emitted_with_the_groups_that_measured_quickest() -> None:
    supernet = make_supernet()
    chosen = convolutions(supernet, Plan(supernet, CHEAP_AT_FOUR).emitted(uniform(supernet, 16)))
    assert chosen == dict.fromkeys(convolutions(supernet, uniform(supernet, 16)), 4)


def test_a_layer_never_gets_more_groups_than_it_has() -> None:
    supernet = make_supernet()
    assert convolutions(supernet, Plan(supernet, CHEAP_AT_FOUR).emitted(uniform(supernet, 2))) == {}
    assert Plan(supernet, CHEAP_AT_FOUR).emitted(uniform(supernet, 1)) == {}


def test_what_is_hardly_quicker_is_left_as_it_is() -> None:
    supernet = make_supernet()
    close = Clock({1: 1.0, 2: 0.6, 4: 0.495, 8: 0.5, 16: 0.5}, fixed_ms=1e-3)
    groups = {**uniform(supernet, 16), "b.conv2": 1}  # the only layer that the rule would change
    assert convolutions(supernet, Plan(supernet, close).emitted(groups)) == {}


def test_figures_are_taken_once_for_all_configurations_and_plans_of_a_host() -> None:
    supernet, figures, clock = make_supernet(), Figures(), Clock({4: 0.2})
    plan = Plan(supernet, clock, figures=figures)
    first = plan.emitted(uniform(supernet, 16))
    taken = clock.measured
    assert taken > 0
    assert plan.emitted(uniform(supernet, 16)) == first
    assert Plan(make_supernet(1), clock, figures=figures).emitted(uniform(supernet, 16)) == first
    assert clock.measured == taken


def test_what_needs_more_arithmetic_than_the_host_can_do_in_time_is_not_tried() -> None:
    supernet = bottlenecks(64)
    frugal, fair = Clock({1: 1.0, 2: 0.5, 4: 0.25, 8: 0.125, 16: 0.0625}, 1e-3), Clock({1: 1.0}, 1e-3)
    Plan(supernet, frugal).emitted(uniform(supernet, 16))
    Plan(supernet, fair).emitted(uniform(supernet, 16))
    assert frugal.measured < fair.measured


@pytest.mark.parametrize("seed", range(10))
def test_a_random_emission_answers_as_the_network_does(seed: int) -> None:
    supernet = make_supernet(seed)
    groups = random_groups(supernet, seed)
    choose = np.random.default_rng(seed)
    emitted = {
        name: int(choose.choice([one for one in (1, 2, 4, 8, 16) if one <= count])) for name, count in groups.items()
    }
    expected = run(materialize(supernet, groups, fold=False), images(3))
    graph = lower(supernet, groups, emitted=emitted)
    for reduced in (False, True):
        if reduced:
            reduce_shuffles(graph)
        assert np.abs(run(graph.to_bytes(), images(3)) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_rule_fills_vectors_of_layers_over_neighbourhoods_only() -> None:
    supernet = make_supernet()
    assert Plan(supernet).emitted(uniform(supernet, 16)) == {"b.conv2": 2}  # 32 channels: 16 a group
    assert Plan(supernet).emitted(uniform(supernet, 2)) == {}


def test_the_whole_network_decides_when_its_segments_misled() -> None:
    supernet = make_supernet()

    def misled(graphs: Sequence[Graph]) -> List[float]:
        return [100 - one if _whole(supernet, graphs) else one for one in CHEAP_AT_FOUR(graphs)]

    groups = uniform(supernet, 16)
    assert Plan(supernet, CHEAP_AT_FOUR).settled(groups) == Plan(supernet, CHEAP_AT_FOUR).emitted(groups)
    assert Plan(supernet, misled).emitted(groups) == Plan(supernet, CHEAP_AT_FOUR).emitted(groups)
    assert Plan(supernet, misled).settled(groups) == Plan(supernet).by_rule(groups)


def test_every_kind_of_segment_is_settled_on_its_own() -> None:
    supernet = bottlenecks(32, 64)  # two kinds: `0.` and `1.`

    def mixed(graphs: Sequence[Graph]) -> List[float]:
        """In the whole network the second kind alone gains by fewer groups."""
        if not _whole(supernet, graphs):
            return CHEAP_AT_FOUR(graphs)
        return [10.0 + _groups(graph, "1.") - 0.5 * _groups(graph, "0.") for graph in graphs]

    groups = uniform(supernet, 16)
    plan = Plan(supernet, mixed)
    assert plan.emitted(groups) == {"0.a": 4, "0.b": 4, "1.a": 4, "1.b": 4}
    assert plan.settled(groups) == {"1.a": 4, "1.b": 4}


def _whole(supernet: Supernet, graphs: Sequence[Graph]) -> bool:
    return bool(graphs[0].inputs[0].name == supernet.inputs[0].name)


def _groups(graph: Graph, start: str) -> int:
    named = (node for node in graph.nodes if node.name.startswith(start) and node.op_type == "Conv")
    return sum(layer_channels(graph, node)[0] for node in named)


def test_without_a_measurement_the_rule_is_settled() -> None:
    supernet = make_supernet()
    groups = uniform(supernet, 16)
    assert Plan(supernet).settled(groups) == Plan(supernet).by_rule(groups)


def test_groups_that_are_no_powers_of_two_are_emitted_with_a_divisor_that_the_layer_allows() -> None:
    supernet = make_supernet()
    odd = tuple(
        dataclasses.replace(layer, groups=(1, 16)) if layer.name == "b.conv2" else layer for layer in supernet.layers
    )
    supernet = dataclasses.replace(supernet, layers=odd)
    groups = uniform(supernet, 16)
    assert Plan(supernet).by_rule(groups) == {"b.conv2": 1}
    lower(supernet, groups, emitted=Plan(supernet, CHEAP_AT_FOUR).settled(groups))


def test_what_an_engine_does_not_take_is_not_chosen_and_not_kept() -> None:
    supernet, figures = make_supernet(), Figures()

    def picky(graphs: Sequence[Graph]) -> List[float]:
        for graph in graphs:
            for node in graph.nodes:
                if node.op_type == "Conv" and layer_channels(graph, node)[0] == 4:
                    raise EngineError("no kernel for four groups")
        return CHEAP_AT_FOUR(graphs)

    groups = uniform(supernet, 16)
    chosen = Plan(supernet, picky, figures=figures).settled(groups)
    assert 4 not in convolutions(supernet, chosen).values()
    assert all(took < 1e9 for known in figures.times_ms.values() for took in known.values())


def test_a_small_network_measured_first_does_not_hide_candidates_of_a_large_one() -> None:
    overhead = Clock({1: 1.0, 2: 5.0, 4: 5.0, 8: 5.0, 16: 5.0}, fixed_ms=50.0)
    small, large = bottlenecks(32), bottlenecks(512)
    alone = Plan(large, overhead).emitted(uniform(large, 2))
    figures = Figures()
    Plan(small, overhead, figures=figures).emitted(uniform(small, 2))
    assert alone
    assert Plan(large, overhead, figures=figures).emitted(uniform(large, 2)) == alone


def test_a_long_unit_is_tuned_layer_by_layer() -> None:
    make = SupernetBuilder(0)
    x = make.conv("input", "stem", 1, 32, switched=False)
    for number in range(7):
        x = make.shuffle(make.conv(x, f"c{number}", 32, 32), f"s{number}", 32)
    x = make.add("Flatten", [make.add("GlobalAveragePool", [make.conv(x, "last", 32, 32)], "pool")], "flat", axis=1)
    make.weights["head"] = np.ones((10, 32), np.float32)
    supernet = make.supernet(make.add("Gemm", [x, "head"], "fc", transB=1))
    clock = Clock({1: 1.0, 2: 0.6, 4: 0.2, 8: 0.5, 16: 0.5})
    assert set(Plan(supernet, clock).emitted(uniform(supernet, 16)).values()) == {4}
    assert clock.measured < 100
