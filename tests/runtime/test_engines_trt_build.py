"""Which layers of TensorRT a name in `--fp32-layers` means; how engines are built is in `test_engines_trt`."""

from typing import Any, Dict, List

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.doubles.install import install
from tests.runtime.double_rig import logger_of
from tests.runtime.trt_rig import VERSIONS
from wenet_runtime.engines.trt_build import Timings, build_plan, names_of
from wenet_runtime.engines.trt_files import Recipe
from wenet_runtime.errors import EngineError


@pytest.mark.parametrize(
    ("layer", "aliases", "wanted"),
    [
        ("conv", {}, ["conv"]),
        ("conv", {"conv": "features.conv"}, ["conv", "features.conv"]),
        ("conv_12", {}, ["conv_12", "conv"]),
        ("conv_12", {"conv": "features.conv"}, ["conv_12", "conv", "features.conv"]),
        ("conv_12", {"conv_12": "its own"}, ["conv_12", "conv", "its own"]),
        ("conv_a", {}, ["conv_a"]),
        ("(Unnamed Layer* 3) [Shuffle]", {}, ["(Unnamed Layer* 3) [Shuffle]"]),
    ],
)
def test_a_layer_goes_by_its_own_name_its_node_s_and_the_bundle_s(
    layer: str, aliases: Dict[str, str], wanted: List[str]
) -> None:
    assert names_of(layer, aliases) == wanted


def compared() -> bytes:
    """A network in which a layer of a computing kind makes booleans: what is below zero becomes the square."""
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"], name="body.square"),
        helper.make_node("Less", ["x", "zero"], ["below"], name="body.below"),
        helper.make_node("Where", ["below", "square", "x"], ["y"], name="body.choose"),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4])] for name in ("x", "y")]
    graph = helper.make_graph(nodes, "compared", *ends, [zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def pinned(double: Any, pattern: str) -> Dict[str, str]:
    """The layers that a build with this pattern constrains."""
    trt = double.tensorrt
    logger = logger_of(trt)
    timings = Timings(lambda: None, lambda data: None)
    recipe = Recipe(fp16=True, int8=False, fp32_layers=(pattern,), workspace_bytes=1 << 20, most_rows=1)
    build_plan(trt, trt.Builder(logger), logger, compared(), recipe, timings=timings, aliases={})
    found: Dict[str, str] = double.built[-1]["pinned"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_layer_that_makes_no_floats_is_left_alone(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pinned(install(monkeypatch, version), "body.*") == {"body.square": "FLOAT"}


def test_a_name_of_such_a_layer_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"--fp32-layers names 'body\.below', and .* there are body\.square"):
        pinned(install(monkeypatch, "8.2.1"), "body.below")
