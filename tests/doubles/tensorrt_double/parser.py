"""The ONNX parser, and what it refuses."""

from typing import Any, Iterator, List, Optional, Tuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from tests.doubles.tensorrt_double.library import ELEMENTS, Library, wants, wants_buffer
from tests.doubles.tensorrt_double.network import KIND
from tests.doubles.tensorrt_double.strict import StrictObject

# Up to which operator set a version's documents promise to read; the first version that a line holds for.
OPSETS = (((8, 2), 13), ((8, 4), 16), ((8, 5), 17), ((10, 0), 20), ((10, 10), 22))
LAST_IR_OF_8_2 = 8
Refusal = Tuple[str, int, str]  # the name of an error code, the node, what is wrong


def highest_opset(version: Tuple[int, ...]) -> int:
    return [opset for first, opset in OPSETS if first <= version][-1]


def refusals(model: onnx.ModelProto, version: Tuple[int, ...]) -> Iterator[Refusal]:
    """What a version does not take of a model."""
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    if opset > highest_opset(version):
        yield "UNSUPPORTED_GRAPH", -1, f"opset {opset}, and this version reads up to {highest_opset(version)}"
    if version < (8, 4) and model.ir_version > LAST_IR_OF_8_2:
        yield "MODEL_DESERIALIZE_FAILED", -1, f"IR version {model.ir_version} is newer than this parser"
    numbers = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            numbers[node.output[0]] = node.attribute[0].t
    allowed = set(ELEMENTS) - (set() if version >= (10,) else {16}) - (set() if version >= (8, 5) else {2})
    for one in [*model.graph.input, *model.graph.output]:
        element = one.type.tensor_type.elem_type
        if one.name not in numbers and element not in allowed:
            yield "UNSUPPORTED_GRAPH", -1, f"tensor {one.name} has element type {element}, which is not supported"
    for index, node in enumerate(model.graph.node):
        if node.domain not in ("", "ai.onnx") or node.op_type not in KIND:
            yield "UNSUPPORTED_NODE", index, f"No importer registered for op: {node.op_type}"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            for text in quantisation(node, numbers):
                yield "UNSUPPORTED_NODE", index, text


def quantisation(node: Any, numbers: Any) -> Iterator[str]:
    """Only symmetric int8 is taken."""
    scale = numbers.get(node.input[1])
    if scale is None:
        yield "the scale must be a constant"
    elif not (numpy_helper.to_array(scale) > 0).all():
        yield "the scale must be positive"
    zero = numbers.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if zero is None and node.op_type == "QuantizeLinear":
        yield "without a zero point it quantises to uint8, which is not supported"
    if zero is not None:
        if zero.data_type != onnx.TensorProto.INT8:
            yield f"zero point of element type {zero.data_type}: only int8 is supported"
        elif np.any(numpy_helper.to_array(zero)):
            yield "only symmetric quantization is supported: the zero point must be all zeros"
    stored = numbers.get(node.input[0])
    if node.op_type == "DequantizeLinear" and stored is not None and stored.data_type != onnx.TensorProto.INT8:
        yield f"dequantises element type {stored.data_type}: only int8 is supported"


class ParserError(StrictObject):
    """One refusal; everything is a method."""

    _library: Library

    def _start(self, code: str, node: int, text: str, operator: str) -> None:
        self._code, self._node, self._text, self._operator = code, node, text, operator

    def code(self) -> Any:
        return self._library.classes["ErrorCode"].__members__[self._code]

    def desc(self) -> str:
        return self._text

    def file(self) -> str:
        return "tests/doubles"

    def line(self) -> int:
        return 0

    def func(self) -> str:
        return "parse"

    def node(self) -> int:
        return self._node

    def node_name(self) -> str:
        return self._operator.partition(":")[0]

    def node_operator(self) -> str:
        return self._operator.partition(":")[2]

    def __str__(self) -> str:
        return f"In node {self._node} (parse): {self._code}: {self._text}"

    __repr__ = __str__


class OnnxParser(StrictObject):
    """Fills a network from ONNX bytes."""

    _library: Library

    def __init__(self, network: Any, logger: Any) -> None:
        self._network = wants(network, self._library.classes["INetworkDefinition"], "OnnxParser")
        self._logger = wants(logger, self._library.classes["ILogger"], "OnnxParser")
        self._errors: List[Any] = []

    def _fail(self, code: str, node: int, text: str, operator: str = ":") -> None:
        self._errors.append(self._library.make("ParserError", code, node, text, operator))
        self._library.error(self._logger, f"In node {node} (parse): {code}: {text}")

    def parse(self, model: Any, path: Optional[str] = None) -> bool:
        data = wants_buffer(model, "OnnxParser.parse")
        if self._network._model is not None:
            self._library.gpu.misuse("a network was parsed into twice")
        if self._library.version < (10,) and not self._network._flags & 1:
            self._fail("INVALID_GRAPH", -1, "the network must be made with EXPLICIT_BATCH to take ONNX")
            return False
        try:
            proto = onnx.ModelProto.FromString(data)
        except DecodeError:
            self._fail("MODEL_DESERIALIZE_FAILED", -1, "Failed to parse ONNX model")
            return False
        if not proto.graph.node:
            self._fail("INVALID_GRAPH", -1, "the graph is empty")
        for code, index, text in refusals(proto, self._library.version):
            node = proto.graph.node[index]
            self._fail(code, index, text, f"{node.name}:{node.op_type}" if index >= 0 else ":")
        if self._errors:
            return False
        wide = [one.name for one in proto.graph.initializer if one.data_type == onnx.TensorProto.INT64]
        if wide and self._library.version < (10,):
            self._library.log(self._logger, "WARNING", f"INT64 weights are cast down to INT32: {', '.join(wide)}")
        self._network._fill(proto)
        return True

    def parse_from_file(self, model: str) -> bool:
        with open(model, "rb") as file:  # noqa: PTH123 - a plain path, as the real one takes
            return bool(OnnxParser.parse(self, file.read()))

    def supports_operator(self, op_name: str) -> bool:
        return op_name in KIND

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()
