"""Small ONNX graphs for the lowering passes' tests, built operator by operator."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import shuffle_order

SIDE = 6


class Net:
    """Collects nodes and numbers; every operator's result is a tensor named after its node.

    Args:
        channels: of the input "input", which is (batch, channels, 6, 6).
    """

    def __init__(self, channels: int = 16, seed: int = 0) -> None:
        self.channels = channels
        self.random = np.random.default_rng(seed)
        self.nodes: List[NodeProto] = []
        self.numbers: Dict[str, NDArray[Any]] = {}

    def op(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def number(self, name: str, value: NDArray[Any]) -> str:
        self.numbers[name] = value
        return name

    def conv(self, x: str, name: str, inputs: int, outputs: int, *, groups: int = 1, bias: bool = True) -> str:
        size = inputs // groups
        weight = self.random.normal(0, size**-0.5, (outputs, size, 1, 1)).astype(np.float32)
        names = [x, self.number(f"{name}.w", weight)]
        if bias:
            names.append(self.number(f"{name}.b", self.random.normal(0, 1, outputs).astype(np.float32)))
        return self.op("Conv", names, name, group=groups, kernel_shape=[1, 1])

    def linear(
        self, x: str, name: str, inputs: int, outputs: int, *, bias: bool = True, turned: bool = False, alpha: float = 1
    ) -> str:
        """A matrix product; its weight is (out, in), or (in, out) if `turned`."""
        weight = self.random.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32)
        names = [x, self.number(f"{name}.w", np.ascontiguousarray(weight.T) if turned else weight)]
        if bias:
            names.append(self.number(f"{name}.b", self.random.normal(0, 1, outputs).astype(np.float32)))
        return self.op("Gemm", names, name, transB=int(not turned), alpha=float(alpha))

    def depthwise(self, x: str, name: str, channels: int) -> str:
        weight = self.random.normal(0, 0.5, (channels, 1, 3, 3)).astype(np.float32)
        bias = self.random.normal(0, 1, channels).astype(np.float32)
        names = [x, self.number(f"{name}.w", weight), self.number(f"{name}.b", bias)]
        return self.op("Conv", names, name, group=channels, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def norm(self, x: str, name: str, channels: int) -> str:
        parts = [x]
        for part, low, high in (("scale", 0.5, 1.5), ("shift", -1, 1), ("mean", -1, 1), ("var", 0.5, 2)):
            value = self.random.uniform(low, high, channels).astype(np.float32)
            parts.append(self.number(f"{name}.{part}", value))
        return self.op("BatchNormalization", parts, name, epsilon=1e-3)

    def shuffle(self, x: str, name: str, channels: int, groups: int = 4) -> str:
        return self.op("Gather", [x, self.number(f"{name}.order", shuffle_order(channels, groups))], name, axis=1)

    def squeeze_excite(self, x: str, name: str, channels: int) -> str:
        """The gate of MobileNetV3 and EfficientNet: pool, two dense convolutions, a product."""
        gate = self.op("GlobalAveragePool", [x], f"{name}.pool")
        gate = self.op("Relu", [self.conv(gate, f"{name}.down", channels, 4)], f"{name}.relu")
        gate = self.op("Sigmoid", [self.conv(gate, f"{name}.up", 4, channels)], f"{name}.sigmoid")
        return self.op("Mul", [x, gate], f"{name}.mul")

    def graph(self, outputs: Sequence[str], inputs: Optional[Sequence[Tuple[str, int]]] = None) -> Graph:
        """The graph that returns these tensors."""
        given = [("input", self.channels)] if inputs is None else inputs
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, SIDE, SIDE])
            for name, channels in given
        ]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        return Graph(self.nodes, self.numbers, values, results)


def answers(graph: Graph, seed: int = 9) -> Dict[str, NDArray[Any]]:
    """What a graph answers to random inputs under ONNX Runtime, by output."""
    random = np.random.default_rng(seed)
    given = {}
    for value in graph.inputs:
        shape = [2] + [size.dim_value for size in value.type.tensor_type.shape.dim][1:]
        given[value.name] = random.normal(size=shape).astype(np.float32)
    engine = OrtBackend().load_bytes(graph.to_bytes(), name="test")
    try:
        return engine.infer(given)
    finally:
        engine.close()


def kinds(graph: Graph) -> List[str]:
    """The operators that are left, in order."""
    return [one.op_type for one in graph.nodes]


def same(one: Dict[str, NDArray[Any]], other: Dict[str, NDArray[Any]]) -> bool:
    """Whether two answers agree to 1e-5 of the largest value."""
    return set(one) == set(other) and all(
        one[name].shape == other[name].shape
        and float(np.abs(one[name] - other[name]).max()) <= 1e-5 * float(np.abs(other[name]).max())
        for name in one
    )
