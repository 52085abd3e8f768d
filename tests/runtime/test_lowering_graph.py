"""An editable ONNX graph: what it refuses to read, and that editing keeps the rest as it was."""

from typing import Any, Dict

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.runtime.nets import Net, answers, kinds, same
from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.graph import IR_VERSION, OPSET, Graph, attribute, set_attribute
from wenet_runtime.lowering.operators import layer_channels

WEIGHT = np.ones((4, 4, 1, 1), np.float32)


def small_model(**more: Any) -> onnx.ModelProto:
    """input → Conv(weight) → output; `weight` is left open unless an initializer is given."""
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4, 6, 6])]
    outputs = [helper.make_tensor_value_info(more.pop("output", "y"), TensorProto.FLOAT, None)]
    nodes = more.pop("nodes", None) or [helper.make_node("Conv", ["input", "weight"], ["y"], name="conv")]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializer=more.pop("initializer", []))
    return helper.make_model(graph, opset_imports=more.pop("opsets", [helper.make_opsetid("", OPSET)]))


def parse(model: onnx.ModelProto, **numbers: Any) -> Graph:
    return Graph.parse(model.SerializeToString(), numbers=numbers, inputs=["input"])


def test_open_numbers_are_filled_in() -> None:
    graph = parse(small_model(), weight=WEIGHT)
    assert layer_channels(graph, graph.node("conv")) == (1, 4, 4)
    assert answers(graph)["y"].shape == (2, 4, 6, 6)


def test_numbers_given_win_over_those_of_the_model() -> None:
    graph = parse(small_model(initializer=[numpy_helper.from_array(WEIGHT, "weight")]), weight=2 * WEIGHT)
    assert graph.numbers["weight"].max() == 2


def test_a_number_that_nobody_supplies_is_named() -> None:
    with pytest.raises(BundleError, match="'conv' reads 'weight', which the weights lack"):
        parse(small_model())


def test_an_output_that_no_node_makes_is_named() -> None:
    with pytest.raises(BundleError, match="output 'z' is made by no node"):
        parse(small_model(output="z"), weight=WEIGHT)


def test_a_node_that_is_not_there_is_named() -> None:
    with pytest.raises(BundleError, match="names node 'stem', which the topology lacks"):
        parse(small_model(), weight=WEIGHT).node("stem")


def test_producers_and_readers_are_found() -> None:
    net = Net()
    x = net.op("Relu", ["input"], "a")
    graph = net.graph([net.op("Add", [x, x], "b")])
    producer = graph.producer("a")
    assert producer is not None
    assert producer.name == "a"
    assert graph.producer("input") is None
    assert [one.name for one in graph.consumers("a")] == ["b"]
    assert graph.is_output("b")
    assert not graph.is_output("a")


def test_removing_a_node_joins_its_readers_to_its_source() -> None:
    net = Net()
    x = net.op("Relu", [net.op("Abs", ["input"], "a")], "gone")
    graph = net.graph([net.op("Add", [x, x], "b")])
    graph.bypass(graph.node("gone"))
    assert kinds(graph) == ["Abs", "Add"]
    assert list(graph.node("b").input) == ["a", "a"]


def test_removing_the_last_node_keeps_the_output_s_name_for_all_readers() -> None:
    net = Net()
    a = net.op("Abs", ["input"], "a")
    graph = net.graph([net.op("Relu", [a], "gone"), net.op("Neg", [a], "other")])
    before = answers(graph)
    graph.bypass(graph.node("gone"))
    after = answers(graph)
    assert set(after) == {"gone", "other"}
    assert np.array_equal(after["other"], before["other"])


def test_an_input_cannot_be_joined_straight_to_an_output() -> None:
    net = Net()
    graph = net.graph([net.op("Relu", ["input"], "only")])
    with pytest.raises(BundleError, match="joins an input straight to an output"):
        graph.bypass(graph.node("only"))


def test_a_node_s_own_number_leaves_other_readers_alone() -> None:
    net = Net()
    net.conv("input", "a", 16, 16, bias=False)
    net.op("Conv", ["input", "a.w"], "b", kernel_shape=[1, 1])
    graph = net.graph(["a", "b"])
    before = answers(graph)["b"]
    graph.own_number(graph.node("a"), 2, np.ones(16, np.float32))
    graph.own_number(graph.node("a"), 1, np.zeros((16, 16, 1, 1), np.float32))
    after = answers(graph)
    assert (after["a"] == 1).all()
    assert np.array_equal(after["b"], before)


def test_what_is_written_is_plain_and_old_enough_for_every_device() -> None:
    net = Net()
    net.number("unread", np.zeros(100_000, np.float32))
    data = net.graph([net.conv("input", "a", 16, 16)]).to_bytes()
    model = onnx.load_model_from_string(data)
    assert model.ir_version == IR_VERSION <= 8
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 13)]
    assert {one.name for one in model.graph.initializer} == {"a.w", "a.b"}
    assert all(one.data_location == TensorProto.DEFAULT for one in model.graph.initializer)


def test_attributes_are_read_and_replaced() -> None:
    one = helper.make_node("Conv", ["x", "w"], ["y"], group=2)
    found: Dict[str, Any] = {"group": attribute(one, "group", 1), "auto_pad": attribute(one, "auto_pad", "NOTSET")}
    assert found == {"group": 2, "auto_pad": "NOTSET"}
    set_attribute(one, "group", 4)
    assert [entry.i for entry in one.attribute] == [4]


def test_a_number_of_its_own_never_takes_the_name_of_anothers() -> None:
    net = Net(16)
    x = net.conv("input", "c", 16, 16)
    weight = net.random.normal(size=(16, 16, 1, 1)).astype(np.float32)
    x = net.op("Conv", [x, net.number("c.1", weight)], "other", kernel_shape=[1, 1])
    graph = net.graph([x])
    before = answers(graph)
    graph.own_number(graph.node("c"), 1, graph.numbers["c.w"])
    assert same(answers(graph), before)


def test_one_row_of_random_values_fits_every_input() -> None:
    net = Net(16)
    graph = net.graph([net.op("Concat", ["input", "second"], "c", axis=1)], inputs=[("input", 16), ("second", 4)])
    row = graph.one_row(np.random.default_rng(0))
    assert {name: value.shape for name, value in row.items()} == {"input": (1, 16, 6, 6), "second": (1, 4, 6, 6)}
    assert {value.dtype for value in row.values()} == {np.dtype(np.float32)}
    graph.inputs[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(ValueError, match="no fixed size"):
        graph.one_row(np.random.default_rng(0))


def test_shapes_of_an_input_without_any_are_unknown() -> None:
    net = Net(16)
    graph = net.graph([net.op("Relu", ["input"], "r")])
    graph.inputs[0].type.tensor_type.ClearField("shape")
    assert graph.shapes().get("r", ()) == ()
