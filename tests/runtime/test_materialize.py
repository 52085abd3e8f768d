"""A materialized mode computes what the supernet computes with that mode's weights, and nothing more."""

import dataclasses
from typing import Any, Callable, Dict, Mapping, Optional

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from tests.supernets import images, make_supernet, random_groups, random_statistics, run, uniform
from wenet_runtime.bundle import Bundle
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.precision import dense_emission
from wenet_runtime.lowering.ranges import Tensors, as_statistics, observe
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import Supernet, block_diagonal, lower, materialize, shuffle_order

TOLERANCE = 1e-5
Order = Callable[[int, int], NDArray[Any]]


def the_paper_s_order(channels: int, groups: int) -> NDArray[Any]:
    """Channel k of the result is the (k // groups)-th of group k mod groups."""
    size = channels // groups
    return np.array([(k % groups) * size + k // groups for k in range(channels)], np.int64)


def masked(weight: NDArray[Any], groups: int) -> NDArray[Any]:
    """The full weight with everything off the block diagonal set to zero."""
    out, size = weight.shape[0] // groups, weight.shape[1] // groups
    mask = np.zeros_like(weight)
    for o in range(weight.shape[0]):
        start = (o // out) * size
        mask[o, start : start + size] = 1
    return weight * mask


def reference(
    supernet: Supernet,
    groups: Mapping[str, int],
    statistics: Optional[Mapping[str, NDArray[Any]]] = None,
    *,
    order: Order = the_paper_s_order,
    norm_groups: Optional[Mapping[str, int]] = None,
) -> bytes:
    """The full topology with masked full-size weights, nothing sliced, folded or regrouped.

    `order` and `norm_groups` make it wrong on purpose.
    """
    numbers: Dict[str, NDArray[Any]] = {**supernet.weights, **(statistics or {})}
    for layer in supernet.layers:
        numbers[layer.weight] = masked(numbers[layer.weight], groups[layer.name])
    for shuffle in supernet.shuffles:
        numbers[f"{shuffle.node}.order"] = order(shuffle.channels, shuffle.groups)
    model = onnx.load_model_from_string(supernet.topology)
    nodes = {node.name: node for node in model.graph.node}
    for norm in supernet.norms:
        pattern = norm.patterns[(norm_groups or groups)[norm.layer] if norm.layer is not None else 1]
        for position, name in enumerate((pattern.weight, pattern.bias, pattern.mean, pattern.var), start=1):
            nodes[norm.node].input[position] = name
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in numbers.items() if name in read
    )
    real = [value for value in model.graph.input if value.name == "input"]
    del model.graph.input[:]
    model.graph.input.extend(real)
    data: bytes = model.SerializeToString()
    return data


def deviation(found: bytes, wanted: bytes, seed: int) -> float:
    """The largest difference over the largest value."""
    x = images(4, seed)
    expected = run(wanted, x)
    return float(np.abs(run(found, x) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("seed", range(20))
def test_a_random_configuration_equals_the_masked_supernet_folded_and_unfolded(seed: int) -> None:
    supernet = make_supernet(seed)
    groups = random_groups(supernet, seed)
    statistics = random_statistics(supernet, groups, seed)
    wanted = reference(supernet, groups, statistics)
    assert deviation(materialize(supernet, groups, statistics), wanted, seed) <= TOLERANCE
    assert deviation(materialize(supernet, groups, statistics, fold=False), wanted, seed) <= TOLERANCE


@pytest.mark.parametrize("fold", [True, False])
def test_a_dropped_permutation_is_seen(fold: bool) -> None:
    supernet = make_supernet()
    groups = uniform(supernet, 4)
    wrong = reference(supernet, groups, order=lambda channels, count: np.arange(channels, dtype=np.int64))
    assert deviation(materialize(supernet, groups, fold=fold), wrong, 0) > 100 * TOLERANCE


@pytest.mark.parametrize("fold", [True, False])
def test_another_permutation_is_seen(fold: bool) -> None:
    supernet = make_supernet()
    groups = uniform(supernet, 4)
    wrong = reference(supernet, groups, order=lambda channels, count: the_paper_s_order(channels, channels // count))
    assert deviation(materialize(supernet, groups, fold=fold), wrong, 0) > 100 * TOLERANCE


@pytest.mark.parametrize("fold", [True, False])
def test_another_pattern_s_batch_norm_is_seen(fold: bool) -> None:
    supernet = make_supernet()
    groups = uniform(supernet, 4)
    wrong = reference(supernet, groups, norm_groups={**groups, "b.conv1": 1})
    assert deviation(materialize(supernet, groups, fold=fold), wrong, 0) > 100 * TOLERANCE


def test_the_mode_s_own_statistics_are_used() -> None:
    supernet = make_supernet()
    groups = uniform(supernet, 4)
    with_them = materialize(supernet, groups, random_statistics(supernet, groups, 1))
    assert deviation(with_them, reference(supernet, groups), 0) > 100 * TOLERANCE


@pytest.mark.parametrize("level", [1, 2, 16])
def test_what_is_emitted_is_opset_13_of_an_old_ir_without_external_data(level: int) -> None:
    supernet = make_supernet()
    model = onnx.load_model_from_string(materialize(supernet, uniform(supernet, level)))
    onnx.checker.check_model(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 13)]
    assert model.ir_version <= 8
    assert all(one.data_location == TensorProto.DEFAULT for one in model.graph.initializer)
    assert [value.name for value in model.graph.input] == ["input"]


def test_folding_leaves_no_batch_norm_and_no_shuffle_of_a_dense_network() -> None:
    supernet = make_supernet()
    kinds = {
        node.op_type for node in onnx.load_model_from_string(materialize(supernet, uniform(supernet, 1))).graph.node
    }
    assert not kinds & {"BatchNormalization", "Gather"}


def test_a_mode_carries_only_its_enabled_weights() -> None:
    supernet = make_supernet()
    sizes = {
        level: sum(
            int(np.prod(one.dims))
            for one in onnx.load_model_from_string(materialize(supernet, uniform(supernet, level))).graph.initializer
        )
        for level in (1, 4, 16)
    }
    assert sizes[16] < sizes[4] < sizes[1]
    assert sizes[16] < 0.35 * sizes[1]


def test_materializing_twice_gives_the_same_bytes_and_leaves_the_supernet_as_it_was() -> None:
    supernet = make_supernet()
    before = {name: value.copy() for name, value in supernet.weights.items()}
    first = materialize(supernet, uniform(supernet, 4))
    assert materialize(supernet, uniform(supernet, 4)) == first
    assert all(np.array_equal(value, before[name]) for name, value in supernet.weights.items())


def test_a_bundle_s_supernet_is_the_one_it_was_written_from(bundle: Bundle) -> None:
    mode = bundle.mode("m1")
    found = materialize(Supernet.of(bundle), mode.groups, bundle.statistics(mode))
    golden = bundle.golden()
    assert np.allclose(run(found, golden["input.input"]), golden["m1.logits"], rtol=0, atol=1e-4)


def test_the_order_of_a_shuffle_is_the_paper_s() -> None:
    x = np.arange(12)
    assert shuffle_order(12, 3).tolist() == x.reshape(3, 4).T.reshape(-1).tolist()
    assert shuffle_order(32, 16).tolist() == the_paper_s_order(32, 16).tolist()


def test_the_block_diagonal_gives_each_output_its_own_group_s_inputs() -> None:
    weight = np.arange(4 * 6).reshape(4, 6)
    assert block_diagonal(weight, 2).tolist() == [[0, 1, 2], [6, 7, 8], [15, 16, 17], [21, 22, 23]]


def changed(supernet: Supernet, **weights: Optional[NDArray[Any]]) -> Supernet:
    """A supernet with weights replaced, or removed (None); `__` stands for a dot."""
    numbers = dict(supernet.weights)
    for name, value in weights.items():
        if value is None:
            del numbers[name.replace("__", ".")]
        else:
            numbers[name.replace("__", ".")] = value
    return dataclasses.replace(supernet, weights=numbers)


def test_a_layer_without_groups_is_named() -> None:
    supernet = make_supernet()
    groups = uniform(supernet, 4)
    del groups["b.conv2"]
    with pytest.raises(BundleError, match=r"no group count given for layer 'b.conv2'"):
        materialize(supernet, groups)


@pytest.mark.parametrize("count", [0, 3, 32, -1])
def test_a_group_count_that_is_not_allowed_is_refused(count: int) -> None:
    supernet = make_supernet()
    with pytest.raises(BundleError, match=f"layer 'b.conv2' allows .* groups, not {count}"):
        materialize(supernet, {**uniform(supernet, 4), "b.conv2": count})


def test_a_weight_of_the_wrong_shape_is_named() -> None:
    supernet = make_supernet()
    broken = changed(supernet, b__conv2__weight=np.zeros((32, 16, 3, 3), np.float32))
    with pytest.raises(BundleError, match=r"'b.conv2.weight' is \(32, 16, 3, 3\)"):
        materialize(broken, uniform(supernet, 4))


@pytest.mark.parametrize("name", ["b__conv2__weight", "b__bn2__4__mean", "stem__weight", "hidden__bias"])
def test_a_missing_number_is_named(name: str) -> None:
    supernet = make_supernet()
    with pytest.raises(BundleError, match=name.replace("__", ".")):
        materialize(changed(supernet, **{name: None}), uniform(supernet, 4))


def test_a_layer_whose_weight_is_listed_nowhere_is_refused() -> None:
    supernet = make_supernet()
    layers = (dataclasses.replace(supernet.layers[0], weight="nowhere"), *supernet.layers[1:])
    with pytest.raises(BundleError, match="nowhere"):
        materialize(dataclasses.replace(supernet, layers=layers), uniform(supernet, 4))


@pytest.mark.parametrize("name", ["b__bn2__4__mean", "b__bn2__4__weight"])
def test_batch_norm_numbers_of_the_wrong_length_are_refused(name: str) -> None:
    supernet = make_supernet()
    with pytest.raises(BundleError, match="do not fit"):
        materialize(changed(supernet, **{name: np.zeros(31, np.float32)}), uniform(supernet, 4))


def test_a_shuffle_that_does_not_divide_its_channels_is_refused() -> None:
    supernet = make_supernet()
    shuffles = (dataclasses.replace(supernet.shuffles[0], groups=7), *supernet.shuffles[1:])
    with pytest.raises(BundleError, match="do not fit"):
        materialize(dataclasses.replace(supernet, shuffles=shuffles), uniform(supernet, 4))


def test_a_layer_that_is_another_operator_is_refused() -> None:
    supernet = make_supernet()
    layers = (dataclasses.replace(supernet.layers[0], kind="linear"), *supernet.layers[1:])
    with pytest.raises(BundleError, match=r"'a.expand' is a Conv and not a linear"):
        materialize(dataclasses.replace(supernet, layers=layers), uniform(supernet, 4))


def test_a_layer_whose_node_is_not_there_is_refused() -> None:
    supernet = make_supernet()
    layers = (dataclasses.replace(supernet.layers[0], node="elsewhere"), *supernet.layers[1:])
    with pytest.raises(BundleError, match="node 'elsewhere'"):
        materialize(dataclasses.replace(supernet, layers=layers), uniform(supernet, 4))


def test_external_data_in_the_topology_is_refused() -> None:
    supernet = make_supernet()
    model = onnx.load_model_from_string(supernet.topology)
    tensor = model.graph.initializer.add(name="stem.weight", data_type=TensorProto.FLOAT, dims=[32, 1, 3, 3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(BundleError, match=r"'stem.weight' is external data: refused"):
        materialize(dataclasses.replace(supernet, topology=model.SerializeToString()), uniform(supernet, 4))


def test_statistics_that_fit_no_number_are_refused() -> None:
    supernet = make_supernet()
    groups = uniform(supernet, 4)
    name = supernet.norms[0].patterns[1].mean
    with pytest.raises(BundleError, match="fits no number"):
        materialize(supernet, groups, {"stem.bn.misnamed": supernet.weights[name]})
    with pytest.raises(BundleError, match="fits no number"):
        materialize(supernet, groups, {name: supernet.weights[name][:1]})


def test_groups_for_a_layer_that_is_not_there_are_refused() -> None:
    supernet = make_supernet()
    with pytest.raises(BundleError, match="no layers of this network"):
        materialize(supernet, {**uniform(supernet, 4), "ghost": 1})


def with_ranges(
    supernet: Supernet, groups: Mapping[str, int], emitted: Optional[Mapping[str, int]] = None
) -> Dict[str, NDArray[Any]]:
    """A mode's statistics with the ranges seen on the inputs that `deviation` compares on."""

    def run_all(model: bytes, inputs: Tensors) -> Tensors:
        engine = OrtBackend().load_bytes(model, name="test")
        try:
            return engine.infer(inputs)
        finally:
            engine.close()

    norms = random_statistics(supernet, groups, 0)
    graph = lower(supernet, groups, norms, emitted=emitted)
    return {**norms, **as_statistics(observe(graph, run_all, [{"input": images(4, 0)}]))}


@pytest.mark.parametrize("level", [1, 4, 16])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_answers_like_fp32_within_its_tolerance(precision: str, level: int) -> None:
    supernet = make_supernet()
    groups = uniform(supernet, level)
    statistics = with_ranges(supernet, groups)
    wanted = reference(supernet, groups, random_statistics(supernet, groups, 0))
    for emitted in ({}, dense_emission(supernet.layers, groups)):
        found = materialize(supernet, groups, statistics, emitted=emitted, precision=precision)
        assert deviation(found, wanted, 0) <= PRECISIONS[precision]


@pytest.mark.parametrize("dense_first", [True, False])
def test_ranges_serve_another_emission_in_every_layer(dense_first: bool) -> None:
    supernet = make_supernet()
    groups = uniform(supernet, 16)
    dense = dense_emission(supernet.layers, groups)
    seen, other = (dense, {}) if dense_first else ({}, dense)
    graph = lower(supernet, groups, with_ranges(supernet, groups, seen), emitted=other, precision="int8")
    for node in graph.nodes:
        if node.op_type in ("Conv", "Gemm"):
            maker = graph.producer(node.input[0])
            assert maker is not None
            assert maker.op_type == "DequantizeLinear", node.name


def test_ranges_change_no_float_mode() -> None:
    supernet = make_supernet()
    groups = uniform(supernet, 4)
    plain = materialize(supernet, groups, random_statistics(supernet, groups, 0))
    assert materialize(supernet, groups, with_ranges(supernet, groups)) == plain


def test_int8_without_ranges_is_refused() -> None:
    supernet = make_supernet()
    groups = uniform(supernet, 4)
    with pytest.raises(BundleError, match="needs the ranges"):
        materialize(supernet, groups, random_statistics(supernet, groups, 0), precision="int8")
