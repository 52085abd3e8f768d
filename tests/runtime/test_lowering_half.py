"""A network in fp16 answers like its float form to fp16's rounding, with float inputs and outputs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.runtime.nets import Net, answers, kinds
from tests.runtime.test_lowering_quantize import error, residual
from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.half import to_half

FP16 = 2e-3  # of the largest value; fp16 rounds each to 5e-4 of itself


@pytest.mark.parametrize("groups", [1, 4, 16])
@pytest.mark.parametrize("seed", range(5))
def test_the_answers_stay_within_fp16_s_rounding(seed: int, groups: int) -> None:
    graph = residual(seed, groups)
    wanted = answers(graph)
    to_half(graph)
    assert 0 < error(graph, wanted) <= FP16


def test_a_weight_changed_by_a_hundredth_is_seen() -> None:
    graph = residual(0, 4)
    wanted = answers(graph)
    graph.numbers["stem.w"] = graph.numbers["stem.w"] * np.float32(1.01)
    to_half(graph)
    assert error(graph, wanted) > FP16


def test_every_float_number_is_halved_and_no_other() -> None:
    graph = residual(0, 4)
    order = graph.numbers["shuffle.order"]
    to_half(graph)
    model = onnx.load_model_from_string(graph.to_bytes())
    types = {one.name: one.data_type for one in model.graph.initializer}
    assert types.pop("shuffle.order") == TensorProto.INT64
    assert set(types.values()) == {TensorProto.FLOAT16}
    assert np.array_equal(graph.numbers["shuffle.order"], order)
    borders = [*model.graph.input, *model.graph.output]
    assert [value.type.tensor_type.elem_type for value in borders] == [TensorProto.FLOAT] * 2
    assert (kinds(graph)[0], kinds(graph)[-1], kinds(graph).count("Cast")) == ("Cast", "Cast", 2)


def test_bounds_that_are_constants_of_the_graph_are_halved() -> None:
    net = Net()
    for name, value in (("low", 0.0), ("high", 6.0)):
        net.op("Constant", [], name, value=numpy_helper.from_array(np.array(value, np.float32)))
    net.op("Constant", [], "order", value=numpy_helper.from_array(np.arange(16)[::-1].copy()))
    x = net.op("Clip", [net.conv("input", "conv", 16, 16), "low", "high"], "clip")
    graph = net.graph([net.op("Gather", [x, "order"], "gather", axis=1)])
    wanted = answers(graph)
    to_half(graph)
    assert 0 < error(graph, wanted) <= FP16


def test_a_cast_to_float_inside_becomes_one_to_fp16() -> None:
    net = Net()
    x = net.op("Cast", [net.op("Cast", ["input"], "whole", to=TensorProto.INT32)], "again", to=TensorProto.FLOAT)
    graph = net.graph([net.conv(x, "conv", 16, 16)])
    wanted = answers(graph)
    to_half(graph)
    assert 0 < error(graph, wanted) <= FP16


def test_an_output_that_is_also_read_inside_is_returned_and_read() -> None:
    net = Net()
    x = net.op("Relu", [net.conv("input", "one", 16, 16)], "relu")
    graph = net.graph([x, net.conv(x, "two", 16, 16)])
    wanted = answers(graph)
    to_half(graph)
    assert 0 < error(graph, wanted) <= FP16


def test_inputs_of_whole_numbers_stay_and_unread_ones_too() -> None:
    net = Net()
    graph = net.graph([net.op("Gather", [net.conv("input", "conv", 16, 16), "index"], "gather", axis=1)])
    graph.inputs += [
        helper.make_tensor_value_info("index", TensorProto.INT64, [2]),
        helper.make_tensor_value_info("unread", TensorProto.FLOAT, [1]),
    ]
    to_half(graph)
    assert kinds(graph) == ["Cast", "Conv", "Gather", "Cast"]


def test_a_number_that_fp16_cannot_hold_is_named_and_infinity_is_none() -> None:
    net = Net()
    graph = net.graph([net.conv("input", "conv", 16, 16)])
    graph.numbers["conv.b"][2] = -1e5
    with pytest.raises(BundleError, match=r"number 'conv.b' reaches 100000 and fp16 ends at 65504"):
        to_half(graph)
    graph.numbers["conv.b"][2] = -np.inf
    to_half(graph)
    assert graph.numbers["conv.b"][2] == -np.inf


def test_an_output_that_no_node_makes_is_refused() -> None:
    net = Net()
    graph = net.graph(["input"])
    with pytest.raises(BundleError, match="'input' is made by no node"):
        to_half(graph)
