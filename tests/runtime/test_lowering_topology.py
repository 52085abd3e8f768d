"""What a bundle's topology is refused for when it is read, and that its nodes have names."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.runtime.test_lowering_graph import WEIGHT, small_model
from wenet_runtime.errors import BundleError
from wenet_runtime.lowering.graph import OPSET
from wenet_runtime.lowering.topology import read_topology


def read(model: onnx.ModelProto) -> onnx.ModelProto:
    return read_topology(model.SerializeToString(), OPSET)


def external(name: str = "weight") -> TensorProto:
    tensor = numpy_helper.from_array(WEIGHT, name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"not a model at all"])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"no ONNX model|opsets"):
        read_topology(data, OPSET)


@pytest.mark.parametrize(
    "opsets",
    [
        [helper.make_opsetid("", 12)],
        [helper.make_opsetid("", 17)],
        [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)],
        [],
    ],
)
def test_other_opsets_are_refused(opsets: Any) -> None:
    model = small_model()
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    with pytest.raises(BundleError, match="uses opsets"):
        read(model)


def test_external_data_is_refused() -> None:
    with pytest.raises(BundleError, match="'weight' is external data: refused"):
        read(small_model(initializer=[external()]))


def test_external_data_in_a_constant_is_refused() -> None:
    nodes = [
        helper.make_node("Constant", [], ["weight"], name="constant", value=numpy_helper.from_array(WEIGHT, "inner")),
        helper.make_node("Conv", ["input", "weight"], ["y"], name="conv"),
    ]
    nodes[0].attribute[0].t.CopyFrom(external("inner"))
    with pytest.raises(BundleError, match="external data: refused"):
        read(small_model(nodes=nodes))


def test_external_data_in_a_branch_is_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        initializer=[external("inner")],
    )
    condition = numpy_helper.from_array(np.array(True), "condition")
    nodes = [helper.make_node("If", ["condition"], ["y"], name="if", then_branch=branch, else_branch=branch)]
    with pytest.raises(BundleError, match="external data: refused"):
        read(small_model(nodes=nodes, initializer=[condition]))


def test_an_operator_of_another_domain_is_refused_in_a_branch_too() -> None:
    for nested in (False, True):
        model = small_model()
        stranger = model.graph.node[0]
        if nested:
            branch = helper.make_graph([helper.make_node("MyOp", [], ["out"])], "branch", [], [])
            stranger.attribute.append(helper.make_attribute("then_branch", branch))
            stranger = stranger.attribute[-1].g.node[0]
        stranger.domain = "evil.example"
        with pytest.raises(BundleError, match=r"is of the domain 'evil\.example': refused"):
            read(model)


def test_two_nodes_of_one_name_are_refused() -> None:
    nodes = [
        helper.make_node("Relu", ["input"], ["x"], name="twin"),
        helper.make_node("Relu", ["x"], ["y"], name="twin"),
    ]
    with pytest.raises(BundleError, match="two nodes named 'twin'"):
        read(small_model(nodes=nodes))


def test_nodes_without_a_name_get_one_each() -> None:
    nodes = [helper.make_node("Relu", ["input"], ["x"]), helper.make_node("Relu", ["x"], ["y"])]
    names = [one.name for one in read(small_model(nodes=nodes)).graph.node]
    assert all(names)
    assert len(set(names)) == 2
