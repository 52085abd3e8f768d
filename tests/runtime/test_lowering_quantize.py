"""A network in int8 answers like its float form to the step of its scales, and only where ranges are known."""

import fnmatch
from typing import Any, Dict, List, Tuple

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto

from tests.runtime.nets import SIDE, Net, answers, kinds
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.lowering.quantize import activation_names, quantize
from wenet_runtime.lowering.ranges import Tensors, observe

# Of the largest value. Random weights are the worst case; every tensor rounds to 1/255 of its range.
INT8 = 0.05
LAYER = ["Constant", "Constant", "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv"]


def run(model: bytes, inputs: Tensors) -> Dict[str, NDArray[Any]]:
    engine = OrtBackend().load_bytes(model, name="test")
    try:
        return engine.infer(inputs)
    finally:
        engine.close()


def ranges_of(graph: Graph, seed: int = 9) -> Dict[str, Tuple[float, float]]:
    """Ranges on the inputs that `answers` gives to a graph of one input."""
    channels = graph.inputs[0].type.tensor_type.shape.dim[1].dim_value
    x = np.random.default_rng(seed).normal(size=(2, channels, SIDE, SIDE)).astype(np.float32)
    return observe(graph, run, [{graph.inputs[0].name: x}])


def residual(seed: int, groups: int) -> Graph:
    """What the networks consist of: grouped, depthwise and dense layers, a shuffle, a sum, pooling, a classifier."""
    net = Net(seed=seed)
    x = net.op("Relu", [net.conv("input", "stem", 16, 32)], "stem.relu")
    y = net.op("Relu", [net.conv(x, "one", 32, 32, groups=groups)], "one.relu")
    y = net.shuffle(y, "shuffle", 32)
    y = net.op("Relu", [net.depthwise(y, "depthwise", 32)], "depthwise.relu")
    y = net.conv(y, "two", 32, 32, groups=groups, bias=False)
    x = net.op("Relu", [net.op("Add", [x, y], "add")], "add.relu")
    x = net.squeeze_excite(net.op("MaxPool", [x], "max", kernel_shape=[2, 2]), "gate", 32)
    x = net.op("Flatten", [net.op("GlobalAveragePool", [x], "pool")], "flatten", axis=1)
    weight = net.random.normal(0, 0.2, (10, 32)).astype(np.float32)
    head = [net.number("head.w", weight), net.number("head.b", net.random.normal(0, 1, 10).astype(np.float32))]
    return net.graph([net.op("Gemm", [x, *head], "head", transB=1)])


def error(graph: Graph, wanted: Dict[str, NDArray[Any]]) -> float:
    """The largest difference over the largest value."""
    found = answers(graph)
    assert set(found) == set(wanted)
    return max(float(np.abs(found[name] - wanted[name]).max() / np.abs(wanted[name]).max()) for name in wanted)


def numbers(graph: Graph, layer: str, position: int) -> Tuple[NDArray[Any], NDArray[Any], NodeProto]:
    """A layer's integers, their scales, and the node that reads them."""
    node = graph.producer(graph.node(layer).input[position])
    assert node is not None
    assert node.op_type == "DequantizeLinear"
    return graph.numbers[node.input[0]], graph.numbers[node.input[1]], node


@pytest.mark.parametrize("groups", [1, 4, 16])
@pytest.mark.parametrize("seed", range(5))
def test_the_answers_stay_within_the_stated_error(seed: int, groups: int) -> None:
    graph = residual(seed, groups)
    wanted, ranges = answers(graph), ranges_of(graph)
    quantize(graph, ranges)
    assert 0 < error(graph, wanted) <= INT8


@pytest.mark.parametrize("seed", range(5))
def test_weights_of_7_bits_cost_little_and_cannot_overflow_16(seed: int) -> None:
    graph = residual(seed, 4)
    wanted, ranges = answers(graph), ranges_of(graph)
    quantize(graph, ranges, reduce_range=True)
    assert error(graph, wanted) <= INT8
    layers = [node.name for node in graph.nodes if node.op_type in ("Conv", "Gemm")]
    largest = max(int(np.abs(numbers(graph, layer, 1)[0].astype(int)).max()) for layer in layers)
    assert 255 * largest * 2 <= 32767


@pytest.mark.parametrize("factor", [0.1, 100.0])
def test_wrong_ranges_are_seen(factor: float) -> None:
    graph = residual(0, 4)
    wanted, ranges = answers(graph), ranges_of(graph)
    quantize(graph, {name: (low * factor, high * factor) for name, (low, high) in ranges.items()})
    assert error(graph, wanted) > 4 * INT8


def test_every_layer_reads_integers_and_the_borders_stay_float() -> None:
    graph = residual(0, 4)
    quantize(graph, ranges_of(graph))
    for node in graph.nodes:
        if node.op_type in ("Conv", "Gemm"):
            assert {graph.producer(name).op_type for name in node.input} == {"DequantizeLinear"}, node.name  # type: ignore[union-attr]
    model = onnx.load_model_from_string(graph.to_bytes())
    borders = [*model.graph.input, *model.graph.output]
    assert [value.type.tensor_type.elem_type for value in borders] == [onnx.TensorProto.FLOAT] * 2
    assert kinds(graph)[-1] == "Gemm"


def test_a_convolution_and_its_activation_are_rounded_once() -> None:
    net = Net()
    x = net.op("Relu", [net.conv("input", "one", 16, 16)], "relu")
    graph = net.graph([net.conv(x, "two", 16, 16)])
    quantize(graph, {"input": (-1, 1), "relu": (0, 1)})
    assert kinds(graph) == [*LAYER, "Relu", *LAYER]


def test_a_layer_of_unknown_input_stays_in_float() -> None:
    net = Net()
    x = net.op("Relu", [net.conv("input", "one", 16, 16)], "relu")
    graph = net.graph([net.conv(x, "two", 16, 16)])
    wanted = answers(graph)
    quantize(graph, {"input": (-4, 4)})
    assert kinds(graph) == [*LAYER, "Relu", "Conv"]
    assert graph.numbers["two.w"].dtype == np.float32
    assert error(graph, wanted) <= INT8


@pytest.mark.parametrize("ranges", [{}, {"elsewhere": (0.0, 1.0)}, {"add": (0.0, 1.0)}])
def test_without_the_range_of_a_layer_s_input_nothing_changes(ranges: Dict[str, Tuple[float, float]]) -> None:
    net = Net()
    graph = net.graph([net.conv(net.op("Add", ["input", "input"], "sum"), "conv", 16, 16)])
    before = graph.to_bytes()
    quantize(graph, ranges)
    assert graph.to_bytes() == before


@pytest.mark.parametrize("kind", ["computed", "alpha", "matrix bias", "transA"])
def test_a_layer_that_int8_has_no_form_of_stays_in_float(kind: str) -> None:
    net = Net()
    x = net.op("Flatten", [net.op("GlobalAveragePool", ["input"], "pool")], "flatten", axis=1)
    weight = net.number("w", net.random.normal(size=(10, 16)).astype(np.float32))
    bias = net.number("b", net.random.normal(size=(1, 10) if kind == "matrix bias" else 10).astype(np.float32))
    if kind == "computed":
        weight = net.op("Neg", [weight], "neg")
    if kind == "transA":
        x, weight = net.op("Transpose", [x], "turned", perm=[1, 0]), weight
    attributes = {"alpha": {"alpha": 2.0}, "transA": {"transA": 1}}.get(kind, {})
    graph = net.graph([net.op("Gemm", [x, weight, bias], "head", transB=1, **attributes)])
    quantize(graph, dict.fromkeys(("input", "pool", "flatten", "turned"), (-1.0, 1.0)))
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(graph))


@pytest.mark.parametrize("turned", [0, 1])
def test_a_matrix_product_has_a_scale_for_every_output_whichever_way_its_weight_lies(turned: int) -> None:
    net = Net()
    x = net.op("Flatten", [net.op("GlobalAveragePool", ["input"], "pool")], "flatten", axis=1)
    weight = (net.random.normal(size=(16, 10)) * np.logspace(-3, 0, 10)).astype(np.float32)
    graph = net.graph([net.op("Gemm", [x, net.number("w", weight.T if turned else weight)], "head", transB=turned)])
    wanted, ranges = answers(graph), ranges_of(graph)
    quantize(graph, ranges)
    steps, scale, node = numbers(graph, "head", 1)
    assert (steps.shape, scale.shape) == ((10, 16) if turned else (16, 10), (10,))
    assert node.attribute[0].i == (0 if turned else 1)
    found = answers(graph)["head"]
    assert np.all(np.abs(found - wanted["head"]) <= INT8 * np.abs(wanted["head"]).max(axis=0))  # column by column


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_a_grouped_convolution_has_one_scale_an_output_channel(groups: int) -> None:
    net = Net()
    graph = net.graph([net.conv("input", "conv", 16, 32, groups=groups)])
    weight, bias = graph.numbers["conv.w"].copy(), graph.numbers["conv.b"].copy()
    quantize(graph, {"input": (-2.0, 3.1)})
    steps, scale, node = numbers(graph, "conv", 1)
    assert (steps.shape, steps.dtype, scale.shape) == ((32, 16 // groups, 1, 1), np.int8, (32,))
    assert np.array_equal(graph.numbers[node.input[2]], np.zeros(32, np.int8))
    assert np.all(np.abs(steps.astype(int)).max(axis=(1, 2, 3)) == 127)
    assert np.all(np.abs(steps * scale[:, None, None, None] - weight) <= scale[:, None, None, None] * 0.501)
    steps, product, _ = numbers(graph, "conv", 2)
    assert (steps.shape, steps.dtype) == ((32,), np.int32)
    assert np.allclose(product, scale * (3.1 + 2.0) / 255, rtol=1e-6)
    assert np.allclose(steps * product, bias, rtol=0, atol=float(product.max()))


def test_a_bias_beside_tiny_weights_does_not_overflow() -> None:
    net = Net()
    graph = net.graph([net.conv("input", "conv", 16, 16)])
    graph.numbers["conv.w"][3] = 1e-12
    graph.numbers["conv.w"][4] = 0
    graph.numbers["conv.b"][3:6] = (1.5, 0, -2.5)
    wanted, ranges = answers(graph), ranges_of(graph)
    quantize(graph, ranges)
    assert error(graph, wanted) <= INT8
    found = answers(graph)["conv"]
    assert np.allclose(found[:, 3], 1.5, rtol=1e-3)
    assert np.allclose(found[:, 4], 0, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (-2.0, -1.0), (0.0, 0.0), (-1e-42, 0.0), (-1.0, 1e30)])
def test_zero_is_a_value_of_every_scale(low: float, high: float) -> None:
    net = Net()
    graph = net.graph([net.conv("input", "conv", 16, 16)])
    quantize(graph, {"input": (low, high)})
    step, zero = (onnx.numpy_helper.to_array(graph.node(f"input.{one}").attribute[0].t) for one in ("step", "zero"))
    assert step.dtype == np.float32
    assert step > 0
    assert zero.dtype == np.uint8
    assert min(low, 0) >= -float(zero) * float(step) - float(step)


@pytest.mark.parametrize("bounds", [(1.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_range_that_is_none_is_refused(bounds: Tuple[float, float]) -> None:
    net = Net()
    graph = net.graph([net.conv("input", "conv", 16, 16)])
    with pytest.raises(BundleError, match="'input' cannot have values"):
        quantize(graph, {"input": bounds})


def test_what_hands_values_on_shares_their_range_whatever_name_it_is_known_by() -> None:
    scales = []
    for name in ("relu", "shuffle", "max"):
        net = Net()
        x = net.shuffle(net.op("Relu", [net.conv("input", "one", 16, 16)], "relu"), "shuffle", 16)
        graph = net.graph([net.conv(net.op("MaxPool", [x], "max", kernel_shape=[2, 2]), "two", 16, 16)])
        assert activation_names(graph) == ("input", "relu")
        quantize(graph, {"input": (-1, 1), name: (0.0, 2.55)})
        for tensor in ("relu", "max"):
            scales.append(float(onnx.numpy_helper.to_array(graph.node(f"{tensor}.step").attribute[0].t)))
    assert scales == [pytest.approx(0.01)] * 6


def test_two_layers_that_read_one_tensor_share_its_rounding() -> None:
    net = Net()
    x = net.op("Relu", [net.conv("input", "stem", 16, 16)], "relu")
    graph = net.graph([net.op("Add", [net.conv(x, "one", 16, 16), net.conv(x, "two", 16, 16)], "add")])
    wanted, ranges = answers(graph), ranges_of(graph)
    quantize(graph, ranges)
    assert kinds(graph).count("QuantizeLinear") == 4  # input, relu, and both that the sum reads
    assert error(graph, wanted) <= INT8


def test_a_tensor_that_the_model_returns_is_returned_unrounded() -> None:
    net = Net()
    x = net.op("Relu", [net.conv("input", "one", 16, 16)], "relu")
    graph = net.graph([x, net.conv(x, "two", 16, 16)])
    quantize(graph, {"relu": (0.0, 5.0)})
    plain = Net()
    y = plain.op("Relu", [plain.conv("input", "one", 16, 16)], "relu")
    assert np.array_equal(answers(graph)["relu"], answers(plain.graph([y]))["relu"])


def symmetric_numbers(graph: Graph, layer: str) -> Tuple[NDArray[Any], NDArray[Any], NodeProto]:
    """A layer's float weight, the steps that it is rounded to, and the node that rounds it."""
    rounded = graph.producer(graph.node(layer).input[1])
    assert rounded is not None
    maker = graph.producer(rounded.input[0])
    assert maker is not None
    assert (maker.op_type, rounded.op_type) == ("QuantizeLinear", "DequantizeLinear")
    assert list(maker.input[1:]) == list(rounded.input[1:])
    return graph.numbers[maker.input[0]], graph.numbers[maker.input[1]], maker


class TestSymmetric:
    """The form that TensorRT's parser takes."""

    @pytest.mark.parametrize("groups", [1, 4, 16])
    @pytest.mark.parametrize("seed", range(5))
    def test_the_answers_stay_within_the_stated_error(self, seed: int, groups: int) -> None:
        graph = residual(seed, groups)
        wanted, ranges = answers(graph), ranges_of(graph)
        quantize(graph, ranges, symmetric=True)
        assert 0 < error(graph, wanted) <= INT8

    @pytest.mark.parametrize("factor", [0.1, 100.0])
    def test_wrong_ranges_are_seen(self, factor: float) -> None:
        graph = residual(0, 4)
        wanted, ranges = answers(graph), ranges_of(graph)
        quantize(graph, {name: (low * factor, high * factor) for name, (low, high) in ranges.items()}, symmetric=True)
        assert error(graph, wanted) > 4 * INT8

    @pytest.mark.parametrize("seed", range(3))
    def test_every_integer_is_an_int8_around_zero_and_biases_stay_float(self, seed: int) -> None:
        graph = residual(seed, 4)
        biases = {node.name: node.input[2] for node in graph.nodes if node.op_type == "Conv" and len(node.input) > 2}
        quantize(graph, ranges_of(graph), symmetric=True)
        model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(graph.to_bytes()), strict_mode=True)
        kept = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
        kept.update(
            (node.output[0], onnx.numpy_helper.to_array(node.attribute[0].t))
            for node in model.graph.node
            if node.op_type == "Constant"
        )
        assert {value.dtype for value in kept.values()} <= {np.dtype(np.float32), np.dtype(np.int8), np.dtype(np.int64)}
        pairs = [node for node in graph.nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert pairs
        for node in pairs:
            scale, zero = kept[node.input[1]], kept[node.input[2]]
            assert np.all(scale > 0)
            assert zero.dtype == np.int8
            assert not zero.any()
        # TensorRT takes no integers but those that a QuantizeLinear makes in the network itself.
        makers = {graph.producer(node.input[0]).op_type for node in pairs if node.op_type == "DequantizeLinear"}  # type: ignore[union-attr]
        assert makers == {"QuantizeLinear"}
        for name, bias in biases.items():
            assert graph.node(name).input[2] == bias
            assert graph.numbers[bias].dtype == np.float32

    def test_a_layer_that_is_rounded_the_other_way_has_a_zero_point(self) -> None:
        graph = residual(0, 4)
        quantize(graph, ranges_of(graph))
        zeros = [node for node in graph.nodes if node.name.endswith(".zero")]
        assert any(onnx.numpy_helper.to_array(node.attribute[0].t).dtype == np.uint8 for node in zeros)

    @pytest.mark.parametrize(("low", "high"), [(-3.0, 1.0), (-1.0, 3.0), (0.0, 3.0), (1.0, 3.0), (-3.0, -2.0)])
    def test_the_larger_side_takes_127_steps(self, low: float, high: float) -> None:
        net = Net()
        graph = net.graph([net.conv("input", "conv", 16, 16)])
        quantize(graph, {"input": (low, high)}, symmetric=True)
        step = onnx.numpy_helper.to_array(graph.node("input.step").attribute[0].t)
        assert step == pytest.approx(3 / 127)
        assert step.dtype == np.float32

    def test_weights_are_rounded_by_output_channel_and_zero_ones_stay_zero(self) -> None:
        net = Net()
        graph = net.graph([net.conv("input", "conv", 16, 32, groups=4)])
        graph.numbers["conv.w"][3] = 0
        wanted, ranges = answers(graph), ranges_of(graph)
        quantize(graph, ranges, symmetric=True)
        weight, scale, maker = symmetric_numbers(graph, "conv")
        assert maker.attribute[0].i == 0
        largest = np.abs(weight).reshape(32, -1).max(axis=1)
        assert np.allclose(scale, np.where(largest > 0, largest / 127, 1))
        assert error(graph, wanted) <= INT8
        assert np.allclose(answers(graph)["conv"][:, 3], wanted["conv"][:, 3])

    @pytest.mark.parametrize("turned", [0, 1])
    def test_a_matrix_product_is_rounded_by_output_whichever_way_its_weight_lies(self, turned: int) -> None:
        net = Net()
        x = net.op("Flatten", [net.op("GlobalAveragePool", ["input"], "pool")], "flatten", axis=1)
        weight = (net.random.normal(size=(16, 10)) * np.logspace(-3, 0, 10)).astype(np.float32)
        graph = net.graph([net.op("Gemm", [x, net.number("w", weight.T if turned else weight)], "head", transB=turned)])
        wanted, ranges = answers(graph), ranges_of(graph)
        quantize(graph, ranges, symmetric=True)
        assert symmetric_numbers(graph, "head")[1].shape == (10,)
        found = answers(graph)["head"]
        assert np.all(np.abs(found - wanted["head"]) <= INT8 * np.abs(wanted["head"]).max(axis=0))

    @pytest.mark.parametrize("bounds", [(1.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))])
    def test_a_range_that_is_none_is_refused(self, bounds: Tuple[float, float]) -> None:
        net = Net()
        graph = net.graph([net.conv("input", "conv", 16, 16)])
        with pytest.raises(BundleError, match="'input' cannot have values"):
            quantize(graph, {"input": bounds}, symmetric=True)


@pytest.mark.parametrize("symmetric", [True, False])
class TestLayersThatStayInFloat:
    @pytest.mark.parametrize("names", [["one"], ["o*", "two"], ["head"], ["depthwise"], ["stem"]])
    def test_they_read_nothing_that_was_rounded_and_their_neighbours_stay_in_int8(
        self, names: List[str], symmetric: bool
    ) -> None:
        graph = residual(0, 4)
        wanted, ranges = answers(graph), ranges_of(graph)
        quantize(graph, ranges, symmetric=symmetric, fp32_layers=names)
        for node in graph.nodes:
            if node.op_type in ("Conv", "Gemm"):
                kept = any(fnmatch.fnmatchcase(node.name, name) for name in names)
                rounded = {tensor for tensor in node.input[:2] if tensor.endswith(".rounded")}
                assert len(rounded) == (0 if kept else 2), node.name
        assert 0 < error(graph, wanted) <= INT8

    def test_all_of_them_leave_the_network_as_it_was(self, symmetric: bool) -> None:
        graph = residual(0, 4)
        before, ranges = graph.to_bytes(), ranges_of(graph)
        quantize(graph, ranges, symmetric=symmetric, fp32_layers=["*"])
        assert graph.to_bytes() == before

    def test_a_tensor_that_only_they_read_is_not_rounded(self, symmetric: bool) -> None:
        net = Net()
        x = net.op("Relu", [net.conv("input", "one", 16, 16)], "relu")
        graph = net.graph([net.conv(x, "two", 16, 16)])
        quantize(graph, {"input": (-1, 1), "relu": (0, 1)}, symmetric=symmetric, fp32_layers=["two"])
        assert kinds(graph)[-2:] == ["Relu", "Conv"]
