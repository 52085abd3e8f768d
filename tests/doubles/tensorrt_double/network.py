"""A network as TensorRT has it after parsing ONNX: tensors and one layer a node."""

from typing import Any, Dict, List, Optional

import onnx

from tests.doubles.tensorrt_double.library import ELEMENTS, Library, wants
from tests.doubles.tensorrt_double.strict import StrictObject

# The kind of layer that a node becomes. A node that TensorRT makes several layers of is one here.
LAYERS = {
    "ACTIVATION": (
        "Relu",
        "Sigmoid",
        "Tanh",
        "Clip",
        "LeakyRelu",
        "HardSigmoid",
        "Elu",
        "HardSwish",
        "PRelu",
        "Softplus",
    ),
    "CONVOLUTION": ("Conv",),
    "DECONVOLUTION": ("ConvTranspose",),
    "POOLING": ("MaxPool", "AveragePool"),
    "REDUCE": ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"),
    "SCALE": ("BatchNormalization",),
    "ELEMENTWISE": ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum", "Greater", "Less", "Equal", "And", "Or"),
    "UNARY": ("Exp", "Log", "Sqrt", "Abs", "Neg", "Floor", "Ceil", "Erf", "Not", "Reciprocal", "Round"),
    "SOFTMAX": ("Softmax", "LogSoftmax"),
    "MATRIX_MULTIPLY": ("MatMul", "Gemm"),
    "SHUFFLE": ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "DepthToSpace", "SpaceToDepth"),
    "CONCATENATION": ("Concat",),
    "SLICE": ("Slice", "Pad", "Split", "Expand", "Tile"),
    "GATHER": ("Gather", "GatherElements", "GatherND"),
    "SHAPE": ("Shape",),
    "CONSTANT": ("Constant", "ConstantOfShape"),
    "IDENTITY": ("Identity", "Cast", "Dropout"),
    "QUANTIZE": ("QuantizeLinear",),
    "DEQUANTIZE": ("DequantizeLinear",),
    "TOPK": ("TopK", "ArgMax", "ArgMin"),
    "SELECT": ("Where",),
    "RESIZE": ("Resize",),
    "LRN": ("LRN",),
    "SCATTER": ("ScatterND", "ScatterElements"),
    "EINSUM": ("Einsum",),
}
KIND = {node: kind for kind, nodes in LAYERS.items() for node in nodes}


class ITensor(StrictObject):
    """A tensor of a network."""

    _library: Library

    def _start(self, name: str, shape: List[int], label: str, *, role: str = "") -> None:
        self._name, self._shape, self._label, self._role = name, shape, label, role

    @property
    def name(self) -> str:
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        raise NotImplementedError("the double of TensorRT does not rename tensors")

    @property
    def shape(self) -> Any:
        return self._library.dims(self._shape)

    @shape.setter
    def shape(self, value: Any) -> None:
        if self._role != "input":
            raise RuntimeError("only the shape of a network's input can be set")
        self._shape[:] = [int(one) for one in value]

    @property
    def dtype(self) -> Any:
        return self._library.dtype(self._label)

    @dtype.setter
    def dtype(self, value: Any) -> None:
        raise NotImplementedError("the double of TensorRT does not change a tensor's type")

    @property
    def is_network_input(self) -> bool:
        return self._role == "input"

    @property
    def is_network_output(self) -> bool:
        return self._role == "output"

    @property
    def is_shape_tensor(self) -> bool:
        return False

    @property
    def is_execution_tensor(self) -> bool:
        return True

    @property
    def location(self) -> Any:
        return self._library.classes["TensorLocation"].__members__["DEVICE"]


class ILayer(StrictObject):
    """One node. Its precision is a wish that the builder is told to obey, or not."""

    _library: Library

    def _start(self, node: Any, index: int, tensors: Dict[str, Any]) -> None:
        kind = KIND[node.op_type]
        if node.op_type == "Cast" and "CAST" in self._library.classes["LayerType"].__members__:
            kind = "CAST"
        self._name = node.name or f"(Unnamed Layer* {index}) [{kind.title()}]"
        self._kind, self._tensors = kind, tensors
        self._inputs = [name for name in node.input if name in tensors]
        self._outputs = list(node.output)
        self._precision: Optional[Any] = None
        self._types: Dict[int, Any] = {}

    @property
    def name(self) -> str:
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        self._name = value

    @property
    def type(self) -> Any:
        return self._library.classes["LayerType"].__members__[self._kind]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> Any:
        return self._tensors[self._inputs[index]] if 0 <= index < len(self._inputs) else None

    def get_output(self, index: int) -> Any:
        return self._tensors.get(self._outputs[index]) if 0 <= index < len(self._outputs) else None

    @property
    def precision(self) -> Any:
        return self._precision or self._library.dtype("FLOAT")

    @precision.setter
    def precision(self, value: Any) -> None:
        self._precision = wants(value, self._library.classes["DataType"], "ILayer.precision")

    @property
    def precision_is_set(self) -> bool:
        return self._precision is not None

    def reset_precision(self) -> None:
        self._precision = None

    def set_output_type(self, index: int, dtype: Any) -> None:
        if not 0 <= index < len(self._outputs):
            self._library.gpu.misuse(f"layer {self._name} has no output {index}")
        self._types[index] = wants(dtype, self._library.classes["DataType"], "ILayer.set_output_type")

    def get_output_type(self, index: int) -> Any:
        return self._types.get(index) or self._precision or self._library.dtype("FLOAT")

    def output_type_is_set(self, index: int) -> bool:
        return index in self._types

    def reset_output_type(self, index: int) -> None:
        self._types.pop(index, None)


class INetworkDefinition(StrictObject):
    """Made by a builder, filled by a parser."""

    _library: Library

    def _start(self, builder: Any, flags: int) -> None:
        self._builder, self._flags, self._title = builder, flags, "Unnamed Network 0"
        self._model: Optional[onnx.ModelProto] = None
        self._layers: List[Any] = []
        self._tensors: Dict[str, Any] = {}
        self._ins: List[Any] = []
        self._outs: List[Any] = []

    def _fill(self, model: onnx.ModelProto) -> None:
        """Take over a model that was found good."""
        known = {one.name for one in model.graph.initializer}
        seen = onnx.shape_inference.infer_shapes(model).graph
        self._model, self._title = model, model.graph.name or self._title
        for value in [*seen.value_info, *seen.input, *seen.output]:
            kind = value.type.tensor_type
            shape = [one.dim_value if one.HasField("dim_value") else -1 for one in kind.shape.dim]
            role = "output" if value.name in {one.name for one in seen.output} else ""
            if value.name not in known:
                label = ELEMENTS.get(kind.elem_type, "FLOAT")
                self._tensors[value.name] = self._library.make("ITensor", value.name, shape, label)
                self._tensors[value.name]._role = role
        for one in model.graph.input:
            if one.name not in known:
                self._tensors[one.name]._role = "input"
                self._ins.append(self._tensors[one.name])
        self._outs = [self._tensors[one.name] for one in model.graph.output]
        for index, node in enumerate(model.graph.node):
            self._layers.append(self._library.make("ILayer", node, index, self._tensors))

    @property
    def name(self) -> str:
        return self._title

    @name.setter
    def name(self, value: str) -> None:
        self._title = value

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def num_inputs(self) -> int:
        return len(self._ins)

    @property
    def num_outputs(self) -> int:
        return len(self._outs)

    @property
    def has_implicit_batch_dimension(self) -> bool:
        return self._library.version < (10,) and not self._flags & 1

    def get_layer(self, index: int) -> Any:
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def get_input(self, index: int) -> Any:
        return self._ins[index] if 0 <= index < len(self._ins) else None

    def get_output(self, index: int) -> Any:
        return self._outs[index] if 0 <= index < len(self._outs) else None

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int) -> Any:
        if not -len(self._layers) <= index < len(self._layers):
            raise IndexError(index)
        return self._layers[index]
