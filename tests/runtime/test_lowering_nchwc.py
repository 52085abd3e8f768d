"""What is left of a shuffle fits into ONNX Runtime's blocked layout without changing an answer."""

from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.runtime.nets import SIDE, Net
from wenet_runtime.lowering.fold_shuffle import reduce_shuffle
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.lowering.nchwc import fit_shuffles, moves_blocks, shuffles_into_blocks
from wenet_runtime.materialize import shuffle_order

CHANNELS = 256


def optimised(graph: Graph, path: Path) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])
    return onnx.load(str(path))


def answer(model: onnx.ModelProto, rows: int) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).normal(size=(rows, CHANNELS, SIDE, SIDE)).astype(np.float32)
    found: NDArray[np.float32] = session.run(None, {"input": images})[0]
    return found


def block_of_this_processor(tmp_path: Path) -> int:
    """Output channels of a blocked convolution are padded to whole blocks, which gives the block away."""
    net = Net(16)
    model = optimised(net.graph([net.conv("input", "a", 16, 24)]), tmp_path / "probe.onnx")
    shapes = [list(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) == 4]
    return {24: 8, 32: 16}.get(shapes[0][0], 0)


def chain(producers: int, consumers: int, *, readers: int = 1) -> Graph:
    net = Net(CHANNELS)
    x = net.op("Relu", [net.conv("input", "a", CHANNELS, CHANNELS, groups=producers)], "relu")
    x = net.shuffle(x, "shuffle", CHANNELS, 16)
    return net.graph([net.conv(x, f"b{one}", CHANNELS, CHANNELS, groups=consumers) for one in range(readers)])


def kinds(model: onnx.ModelProto) -> List[str]:
    return [node.op_type for node in model.graph.node]


def fitted(graph: Graph, tmp_path: Path) -> Tuple[onnx.ModelProto, onnx.ModelProto, int]:
    block = block_of_this_processor(tmp_path)
    if block != 16:
        pytest.skip(f"this processor's blocks have {block} channels, not the shuffle's 16")
    shapes = graph.shapes()
    before = optimised(graph, tmp_path / "before.onnx")
    after = onnx.ModelProto()
    after.CopyFrom(before)
    return before, after, fit_shuffles(after, block, shapes)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("pair", [(2, 2), (4, 4), (2, 8)])
def test_whole_blocks_move_without_a_conversion(pair: Tuple[int, int], readers: int, rows: int, tmp_path: Path) -> None:
    graph = chain(*pair, readers=readers)
    assert reduce_shuffle(graph, graph.node("shuffle"), 16)
    before, after, changed = fitted(graph, tmp_path)
    assert changed == 1
    assert kinds(before).count("ReorderInput") > kinds(after).count("ReorderInput")
    assert np.array_equal(answer(before, rows), answer(after, rows))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("pair", [(16, 16), (64, 16), (128, 4)])
def test_a_shuffle_in_front_of_blocks_becomes_one_transposition(
    pair: Tuple[int, int], rows: int, tmp_path: Path
) -> None:
    before, after, changed = fitted(chain(*pair), tmp_path)
    assert changed == 1
    assert "Gather" in kinds(before)
    assert "Gather" not in kinds(after)
    assert "Transpose" in kinds(after)
    assert np.array_equal(answer(before, rows), answer(after, rows))


def test_the_wrong_block_changes_the_answer(tmp_path: Path) -> None:
    before, after, _ = fitted(chain(16, 16), tmp_path)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(before)
    for tensor in wrong.graph.initializer:
        if tensor.name.endswith(".order"):
            tensor.CopyFrom(numpy_helper.from_array(shuffle_order(CHANNELS, 8), tensor.name))
    assert fit_shuffles(wrong, 8, chain(16, 16).shapes()) == 1
    assert not np.allclose(answer(after, 1), answer(wrong, 1))


def test_a_shuffle_between_plain_layouts_stays(tmp_path: Path) -> None:
    graph = chain(128, 128)  # two channels a group: neither side runs in blocks
    _, after, changed = fitted(graph, tmp_path)
    assert changed == 0
    assert "Gather" in kinds(after)


def test_a_shuffle_of_unknown_size_stays(tmp_path: Path) -> None:
    graph = chain(16, 16)
    before = optimised(graph, tmp_path / "before.onnx")
    assert fit_shuffles(before, 16, {}) == 0
    assert fit_shuffles(before, 16, {"relu": (1, CHANNELS, 0, 0)}) == 0


def test_a_shuffle_on_another_axis_or_with_computed_indices_stays() -> None:
    nodes = [
        helper.make_node("ReorderOutput", ["x"], ["plain"], domain="com.microsoft.nchwc", channels=32),
        helper.make_node("Gather", ["plain", "order"], ["s"], axis=2),
        helper.make_node("Gather", ["plain", "computed"], ["t"], axis=1),
        helper.make_node("ReorderInput", ["s"], ["y"], domain="com.microsoft.nchwc"),
        helper.make_node("ReorderInput", ["t"], ["z"], domain="com.microsoft.nchwc"),
    ]
    graph = helper.make_graph(nodes, "g", [], [], [numpy_helper.from_array(shuffle_order(32, 16), "order")])
    model = helper.make_model(graph)
    before = model.SerializeToString()
    shapes: Dict[str, Tuple[int, ...]] = {"plain": (1, 32, 6, 6)}
    assert fit_shuffles(model, 16, shapes) == 0
    assert [node.op_type for node in model.graph.node][1:3] == ["Gather", "Gather"]
    assert len(model.SerializeToString()) <= len(before)


@pytest.mark.parametrize(
    ("order", "whole"),
    [
        (np.arange(32), True),
        (np.r_[16:32, 0:16], True),
        (np.r_[8:24, 0:8, 24:32], False),
        (np.r_[0:15, 16, 15, 17:32], False),
        (np.arange(24), False),
    ],
)
def test_moving_whole_blocks_is_recognised(order: NDArray[np.int64], whole: bool) -> None:
    assert moves_blocks(order, 16) is whole


def test_the_papers_shuffle_is_recognised_by_its_groups() -> None:
    assert shuffles_into_blocks(shuffle_order(96, 16), 16)
    assert not shuffles_into_blocks(shuffle_order(96, 8), 16)
    assert not shuffles_into_blocks(np.arange(24), 16)


def test_indices_that_count_from_the_end_are_not_taken_for_blocks() -> None:
    assert not moves_blocks(np.r_[-16:0, 0:16], 16)


@pytest.mark.parametrize("shape", [(), (1, 64, 6, 6), (1, CHANNELS, 36)])
def test_a_gather_from_another_number_of_channels_or_no_image_stays(shape: Tuple[int, ...], tmp_path: Path) -> None:
    graph = chain(16, 16)
    before = optimised(graph, tmp_path / "before.onnx")
    names = {node.input[0] for node in before.graph.node if node.op_type == "Gather"}
    assert fit_shuffles(before, 16, dict.fromkeys(names, shape)) == 0
