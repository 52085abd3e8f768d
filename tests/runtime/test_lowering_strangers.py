"""Operators that no pass knows are left untouched around a layer, and the answer stays right."""

from typing import Any, Callable

import numpy as np
import pytest
from onnx import helper

from tests.supernets import SupernetBuilder, random_groups
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.plan import Plan
from wenet_runtime.profiler import load_graph, quickest_ms

CHANNELS = 32
Stranger = Callable[[SupernetBuilder, str, str], str]


def of(kind: str, *numbers: Any, **attributes: Any) -> Stranger:
    """One operator of the given kind that reads the tensor and further numbers."""

    def add(make: SupernetBuilder, x: str, name: str) -> str:
        names = []
        for position, value in enumerate(numbers):
            make.weights[f"{name}.{position}"] = np.asarray(value)
            names.append(f"{name}.{position}")
        return make.add(kind, [x, *names], name, **attributes)

    return add


def transposed(make: SupernetBuilder, x: str, name: str) -> str:
    there = make.add("Transpose", [x], f"{name}.there", perm=[0, 2, 3, 1])
    soft = make.add("Softmax", [there], f"{name}.soft", axis=-1)
    return make.add("Transpose", [soft], f"{name}.back", perm=[0, 3, 1, 2])


def halves(make: SupernetBuilder, x: str, name: str) -> str:
    make.nodes.append(helper.make_node("Split", [x], [f"{name}.1", f"{name}.2"], name=f"{name}.split", axis=1))
    return make.add("Concat", [f"{name}.2", f"{name}.1"], name, axis=1)


STRANGERS = {
    "Softmax over channels": of("Softmax", axis=1),
    "LRN": of("LRN", size=5),
    "InstanceNormalization": of(
        "InstanceNormalization", np.linspace(0.5, 1.5, CHANNELS, dtype=np.float32), np.ones(CHANNELS, np.float32)
    ),
    "a scale a channel": of("Mul", np.linspace(0.5, 1.5, CHANNELS, dtype=np.float32).reshape(1, -1, 1, 1)),
    "PRelu a channel": of("PRelu", np.linspace(0, 1, CHANNELS, dtype=np.float32).reshape(-1, 1, 1)),
    "ReduceL2 kept": of("LpNormalization", axis=1, p=2),
    "Transpose and back": transposed,
    "Split and Concat": halves,
}


def with_stranger(stranger: Stranger, *, before: bool) -> Supernet:
    """conv → shuffle → conv, with the stranger before or behind the shuffle."""
    make = SupernetBuilder(3)
    x = make.conv("input", "a", 1, CHANNELS, switched=False)
    x = make.norm(make.conv(x, "b", CHANNELS, CHANNELS), "b.bn", CHANNELS, layer="b")
    x = stranger(make, x, "stranger") if before else x
    x = make.shuffle(x, "shuffle", CHANNELS)
    x = x if before else stranger(make, x, "stranger")
    x = make.norm(make.conv(x, "c", CHANNELS, CHANNELS, kernel=3), "c.bn", CHANNELS, layer="c")
    x = make.add("Flatten", [make.add("GlobalAveragePool", [x], "pool")], "flat", axis=1)
    make.weights["head"] = make.random.normal(size=(10, CHANNELS)).astype(np.float32)
    return make.supernet(make.add("Gemm", [x, "head"], "fc", transB=1))


def answer(graph: Graph, images: Any) -> Any:
    engine = load_graph(OrtBackend(), graph, "stranger")
    try:
        return engine.infer({"input": images})["logits"]
    finally:
        engine.close()


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_beside_a_shuffle_is_left_untouched_and_the_answer_stays(stranger: str, before: bool) -> None:
    supernet = with_stranger(STRANGERS[stranger], before=before)
    kinds = {node.op_type for node in lower(supernet, {"b": 1, "c": 1}, fold=False).nodes}
    images = np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)
    backend = OrtBackend()
    plan = Plan(supernet, lambda graphs: quickest_ms(backend, graphs, rounds=1))
    for seed in range(4):
        groups = random_groups(supernet, seed)
        expected = answer(lower(supernet, groups, fold=False), images)
        for emitted in ({}, plan.emitted(groups), {"b": 1}):
            graph = lower(supernet, groups, emitted=emitted)
            assert kinds - {"BatchNormalization", "Gather"} <= {node.op_type for node in graph.nodes}
            assert np.abs(answer(graph, images) - expected).max() <= 1e-5 * np.abs(expected).max()
