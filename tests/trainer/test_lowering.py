"""The paper's networks in random configurations and random emissions: every pass on answers as every pass off."""

import numpy as np
import pytest

from benchmarks.networks import NETWORKS, make, random_groups, without_shuffles
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.profiler import load_graph
from wenet_trainer.topology import INPUT, OUTPUT

CONFIGURATIONS = 50
SIDE = 64  # the weights are those of 224 pixels


@pytest.fixture(scope="module", params=NETWORKS)
def supernet(request: pytest.FixtureRequest) -> Supernet:
    return make(request.param, size=SIDE)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)


def reference(supernet, groups, images):
    engine = OrtBackend().load_bytes(lower(supernet, groups, fold=False).to_bytes(), name="reference")
    return answer(engine, images)


def answer(engine, images):
    found = engine.infer({INPUT: images})[OUTPUT]
    engine.close()
    return found


def deviation(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_fifty_random_configurations_answer_the_same_with_every_pass_on(supernet, images):
    choose = np.random.default_rng(7)
    for number in range(CONFIGURATIONS):
        groups = random_groups(supernet, number)
        emitted = {name: max(1, count // int(choose.choice([1, 2, 16]))) for name, count in groups.items()}
        engine = load_graph(OrtBackend(), lower(supernet, groups, emitted=emitted), "lowered")
        assert deviation(answer(engine, images), reference(supernet, groups, images)) <= 1e-5, groups


def test_leaving_the_shuffles_out_is_noticed(supernet, images):
    groups = random_groups(supernet, 0)
    engine = load_graph(OrtBackend(), lower(without_shuffles(supernet), groups), "wrong")
    assert deviation(answer(engine, images), reference(supernet, groups, images)) > 1e-2
