"""Dense networks: a materialized mode computes what the masked supernet computes, whatever its layers become."""

import dataclasses
from typing import Callable, List

import numpy as np
import onnx
import pytest

from tests.runtime.dense_nets import make_grouped_classifier, make_mlp, make_residual_mlp
from tests.runtime.test_materialize import TOLERANCE, deviation, reference, with_ranges
from tests.supernets import images, random_groups, random_statistics, run, uniform
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.graph import set_attribute
from wenet_runtime.lowering.precision import dense_emission
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import Supernet, lower, materialize
from wenet_runtime.plan import Plan
from wenet_runtime.profiler import load_graph, quickest_ms
from wenet_runtime.segments import segments

Make = Callable[[int], Supernet]
MAKERS = [make_mlp, make_residual_mlp, make_grouped_classifier]


def kinds(supernet: Supernet, groups: int) -> List[str]:
    return [node.op_type for node in lower(supernet, uniform(supernet, groups)).nodes]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("seed", range(20))
def test_a_random_configuration_in_a_random_emission_equals_the_masked_supernet(make: Make, seed: int) -> None:
    supernet = make(seed)
    groups = random_groups(supernet, seed)
    statistics = random_statistics(supernet, groups, seed)
    choose = np.random.default_rng(seed)
    emitted = {name: max(1, count // int(choose.choice([1, 2, 16]))) for name, count in groups.items()}
    wanted = reference(supernet, groups, statistics)
    assert deviation(materialize(supernet, groups, statistics, emitted=emitted), wanted, seed) <= TOLERANCE
    assert deviation(materialize(supernet, groups, statistics), wanted, seed) <= TOLERANCE
    assert deviation(materialize(supernet, groups, statistics, fold=False), wanted, seed) <= TOLERANCE


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("level", [1, 2, 4])
def test_a_dropped_permutation_is_seen(make: Make, level: int) -> None:
    supernet = make(0)
    groups = uniform(supernet, level)
    wrong = reference(supernet, groups, order=lambda channels, count: np.arange(channels, dtype=np.int64))
    assert deviation(materialize(supernet, groups), wrong, 0) > 1000 * TOLERANCE


def test_another_pattern_s_weights_or_batch_norm_are_seen() -> None:
    supernet = make_mlp()
    groups = uniform(supernet, 4)
    other = {**groups, "fc1": 8}
    assert deviation(materialize(supernet, groups), reference(supernet, other), 0) > 1000 * TOLERANCE
    wrong = reference(supernet, groups, norm_groups=other)
    assert deviation(materialize(supernet, groups), wrong, 0) > 1000 * TOLERANCE


def test_a_dense_mode_is_matrix_products_and_activations_alone() -> None:
    assert kinds(make_mlp(), 1) == ["Flatten", *["Gemm", "Relu"] * 3, "Gemm"]


def test_grouped_layers_hand_on_images_and_leave_no_batch_norm() -> None:
    chain = ["Conv", "Relu", "Gather"]
    assert kinds(make_mlp(), 4) == ["Flatten", "Reshape", *chain, *chain, "Conv", "Relu", "Flatten", "Gemm"]
    assert kinds(make_grouped_classifier(), 2)[-4:] == ["GlobalAveragePool", "Gather", "Conv", "Flatten"]


def test_a_shuffle_beside_a_dense_layer_is_gone() -> None:
    supernet = make_mlp()
    found = lower(supernet, {"fc0": 4, "fc1": 1, "fc2": 4}).nodes
    assert "Gather" not in [node.op_type for node in found]


def test_a_layer_emitted_dense_keeps_its_matrix_product() -> None:
    supernet = make_mlp()
    groups = uniform(supernet, 4)
    assert "Conv" not in [node.op_type for node in lower(supernet, groups, emitted=dict.fromkeys(groups, 1)).nodes]


@pytest.mark.parametrize("make", MAKERS)
def test_what_an_engine_builds_answers_the_same(make: Make) -> None:
    supernet, x = make(3), images(2, 3)
    for seed in range(6):
        groups = random_groups(supernet, seed)
        expected = run(reference(supernet, groups), x)
        engine = load_graph(OrtBackend(), lower(supernet, groups), "built")
        assert np.abs(engine.infer({"input": x})["logits"] - expected).max() <= TOLERANCE * np.abs(expected).max()
        engine.close()


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("seed", range(7))
def test_openvino_answers_the_same(make: Make, seed: int) -> None:
    pytest.importorskip("openvino")
    from wenet_runtime.engines.openvino import OpenVinoBackend

    supernet, x = make(seed), images(2, seed)
    groups = random_groups(supernet, seed)
    expected = run(reference(supernet, groups), x)
    engine = load_graph(OpenVinoBackend(), lower(supernet, groups), "built")
    assert np.abs(engine.infer({"input": x})["logits"] - expected).max() <= TOLERANCE * np.abs(expected).max()
    engine.close()


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("level", [1, 4, 16])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_answers_like_fp32_within_its_tolerance(make: Make, precision: str, level: int) -> None:
    supernet = make(0)
    groups = uniform(supernet, level)
    statistics = with_ranges(supernet, groups)
    wanted = reference(supernet, groups, random_statistics(supernet, groups, 0))
    for emitted in ({}, dense_emission(supernet.layers, groups)):
        found = materialize(supernet, groups, statistics, emitted=emitted, precision=precision)
        assert deviation(found, wanted, 0) <= PRECISIONS[precision]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dense_first", [True, False])
def test_ranges_serve_another_emission_in_every_layer(make: Make, dense_first: bool) -> None:
    supernet = make(0)
    groups = uniform(supernet, 16)
    dense = dense_emission(supernet.layers, groups)
    seen, other = (dense, {}) if dense_first else ({}, dense)
    graph = lower(supernet, groups, with_ranges(supernet, groups, seen), emitted=other, precision="int8")
    for node in graph.nodes:
        if node.op_type in ("Conv", "Gemm"):
            maker = graph.producer(node.input[0])
            assert maker is not None
            while maker.op_type in ("Reshape", "Flatten", "Gather"):
                maker = graph.producer(maker.input[0])
                assert maker is not None
            assert maker.op_type == "DequantizeLinear", node.name


def test_linear_layers_joined_by_shuffles_are_one_segment_that_computes_what_they_compute() -> None:
    (found,) = segments(make_mlp())
    assert found.units == (("fc0", "fc1", "fc2"),)
    assert found.shape == (64,)
    assert found.positions == {"fc0": 1, "fc1": 1, "fc2": 1}
    x = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    answers = []
    for fold in (True, False):
        engine = OrtBackend().load_bytes(lower(found.supernet, uniform(make_mlp(), 4), fold=fold).to_bytes(), name="s")
        answers.append(next(iter(engine.infer({found.supernet.inputs[0].name: x}).values())))
        engine.close()
    assert np.abs(answers[0] - answers[1]).max() <= TOLERANCE * np.abs(answers[1]).max()


def test_a_plan_chooses_emitted_groups_of_linear_layers_by_measurement() -> None:
    supernet = make_mlp()
    groups = uniform(supernet, 8)
    backend = OrtBackend()
    assert Plan(supernet).emitted(groups) == {}
    plan = Plan(supernet, lambda graphs: quickest_ms(backend, graphs, rounds=1))
    chosen = plan.settled(groups)
    assert all(groups[name] % count == 0 for name, count in chosen.items())
    dense_wins = Plan(supernet, lambda graphs: [float("Conv" in [n.op_type for n in g.nodes]) + 1 for g in graphs])
    assert dense_wins.emitted(groups) == dict.fromkeys(groups, 1)


def with_node(supernet: Supernet, change: Callable[[onnx.NodeProto], None]) -> Supernet:
    """The supernet with its layer "fc1" changed."""
    model = onnx.load_model_from_string(supernet.topology)
    change(next(node for node in model.graph.node if node.name == "fc1"))
    return dataclasses.replace(supernet, topology=model.SerializeToString())


def test_a_layer_that_reads_its_weight_the_other_way_round_is_refused() -> None:
    supernet = make_mlp()
    turned = with_node(supernet, lambda node: set_attribute(node, "transB", 0))
    with pytest.raises(BundleError, match=r"'fc1' does not read \(batch, in\)"):
        materialize(turned, uniform(supernet, 4))


@pytest.mark.parametrize("emitted", [1, 4])
@pytest.mark.parametrize("factor", ["alpha", "beta"])
def test_a_grouped_product_with_a_factor_is_refused_and_a_full_one_keeps_it(factor: str, emitted: int) -> None:
    supernet = make_mlp()
    scaled = with_node(supernet, lambda node: set_attribute(node, factor, 0.5))
    groups = uniform(supernet, 4)
    with pytest.raises(BundleError, match=r"'fc1' is more than x · W \+ b: its Gemm has an alpha"):
        materialize(scaled, groups, emitted=dict.fromkeys(groups, emitted))
    full = uniform(supernet, 1)
    assert deviation(materialize(scaled, full), reference(scaled, full), 0) <= TOLERANCE
    assert deviation(materialize(scaled, full), reference(supernet, full), 0) > 1000 * TOLERANCE


def test_a_grouped_product_with_one_number_for_all_outputs_is_refused() -> None:
    supernet = make_mlp()
    weights = {**supernet.weights, "fc1.bias": supernet.weights["fc1.bias"][:1]}
    short = dataclasses.replace(supernet, weights=weights)
    with pytest.raises(BundleError, match="not one number for each output"):
        materialize(short, uniform(supernet, 4))
