"""Optimises a network with ONNX Runtime for this processor and takes its large numbers out of the model.

Imports onnx, so it is imported only when something is built.
"""

import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from wenet_runtime.engines.base import Artifact
from wenet_runtime.lowering.fold_shuffle import reduce_shuffles
from wenet_runtime.lowering.graph import IR_VERSION, OPSET, Graph
from wenet_runtime.lowering.nchwc import fit_shuffles

# Numbers of at least this size lie outside the model. Smaller ones cost more as values of their own than they take.
OUTSIDE_BYTES = 1024
# What the model says its outside numbers lie in: a file that is there and holds nothing.
PLACEHOLDER = os.path.basename(os.devnull)  # noqa: PTH119


def optimised(graph: Graph, options: "onnxruntime.SessionOptions") -> Artifact:
    """What ONNX Runtime makes of a network on this processor at its highest level of optimisation.

    Args:
        graph: the network; what is left of its shuffles is changed to suit.
        options: of the session that optimises; changed.
    """
    block = block_channels()
    reduce_shuffles(graph, block)
    model, numbers = _with_numbers_outside(graph)
    with tempfile.TemporaryDirectory(prefix="wenet-build-") as folder:
        path = Path(folder) / "optimised.onnx"
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(path)
        # Both since ONNX Runtime 1.10; without them the numbers would pass through protobuf, several times.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "numbers")
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_min_size_in_bytes", str(OUTSIDE_BYTES)
        )
        options.add_session_config_entry("session.disable_prepacking", "1")
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in numbers.values()]
        options.add_external_initializers(list(numbers), values)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        result = onnx.load(str(path), load_external_data=False)
        _take_in_indices(result, path.parent)
        fit_shuffles(result, block, graph.shapes())
        return split(result, path.parent)


def plain(graph: Graph) -> Artifact:
    """A network as it is, its large numbers outside: for a provider that optimises what it opens."""
    model, numbers = _with_numbers_outside(graph)
    return Artifact(model.SerializeToString(), numbers)


@lru_cache(maxsize=1)
def block_channels() -> int:
    """Channels of one block of ONNX Runtime's blocked layout on this processor, 8 or 16.

    The output channels of a convolution in this layout are padded to whole blocks, which gives it away.
    """
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 4, 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weight = numpy_helper.from_array(np.ones((24, 16, 1, 1), np.float32), "w")
    made = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "block", [image], [result], [weight])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="wenet-build-") as folder:
        options.optimized_model_filepath = str(Path(folder) / "block.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        weights = onnx.load(options.optimized_model_filepath).graph.initializer
    return 16 if weights[0].dims[0] == 32 else 8


def split(model: onnx.ModelProto, folder: Path) -> Artifact:
    """Take the large numbers out of a model.

    Args:
        model: changed in place; its numbers lie in it, or in files of `folder`.
        folder: may be deleted afterwards, because the numbers stay mapped.
    """
    numbers: Dict[str, NDArray[Any]] = {}
    files: Dict[str, NDArray[Any]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            value = _outside(tensor, folder, files)
        elif len(tensor.raw_data) >= OUTSIDE_BYTES:
            value = numpy_helper.to_array(tensor)
        else:
            continue
        numbers[tensor.name] = value
        tensor.CopyFrom(_reference(tensor.name, tensor.data_type, value))
    data: bytes = model.SerializeToString()
    return Artifact(data, numbers)


def _with_numbers_outside(graph: Graph) -> Tuple[onnx.ModelProto, Mapping[str, NDArray[Any]]]:
    """The graph as a model, and the large numbers it leaves out."""
    numbers: Dict[str, NDArray[Any]] = {}
    initializers = []
    for name, value in graph.read_numbers().items():
        value = np.require(value, requirements=["C", "A"])
        if value.nbytes < OUTSIDE_BYTES:
            initializers.append(numpy_helper.from_array(value, name))
        else:
            numbers[name] = value
            initializers.append(_reference(name, helper.np_dtype_to_tensor_dtype(value.dtype), value))
    return graph.to_model(initializers), numbers


def _reference(name: str, data_type: int, value: NDArray[Any]) -> TensorProto:
    """A tensor that says its numbers lie elsewhere."""
    tensor = TensorProto(name=name, data_type=data_type, dims=value.shape, data_location=TensorProto.EXTERNAL)
    for key, entry in (("location", PLACEHOLDER), ("offset", "0"), ("length", str(value.nbytes))):
        tensor.external_data.add(key=key, value=entry)
    return tensor


def _outside(tensor: TensorProto, folder: Path, files: Dict[str, NDArray[Any]]) -> NDArray[Any]:
    """A tensor's numbers in the file that ONNX Runtime wrote them to, mapped and not read."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries["location"]
    if location not in files:
        files[location] = np.memmap(str(folder / location), np.uint8, mode="r").view(np.ndarray)
    start, length = int(entries.get("offset", "0")), int(entries["length"])
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return files[location][start : start + length].view(kind).reshape(tuple(tensor.dims))


def _take_in_indices(model: onnx.ModelProto, folder: Path) -> None:
    """Put whole numbers of the width of indices back into the model, where passes over it read them."""
    files: Dict[str, NDArray[Any]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL and tensor.data_type in (TensorProto.INT64, TensorProto.INT32):
            tensor.CopyFrom(numpy_helper.from_array(_outside(tensor, folder, files), tensor.name))
