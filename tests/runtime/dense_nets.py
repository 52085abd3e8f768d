"""A dense supernet for tests: linear layers, batch norms and shuffles on rows, made with NumPy and onnx alone."""

from typing import Tuple

import numpy as np

from tests.supernets import CLASSES, SIZE, SupernetBuilder, allowed
from wenet_runtime.bundle import Layer
from wenet_runtime.materialize import Supernet


def linear(make: SupernetBuilder, x: str, name: str, inputs: int, outputs: int, *, bias: bool = False) -> str:
    """A weight-enabled Gemm."""
    weight = make.random.normal(0, inputs**-0.5, (outputs, inputs))
    make.weights[f"{name}.weight"] = weight.astype(np.float32)
    numbers = [f"{name}.weight"]
    if bias:
        make.weights[f"{name}.bias"] = make.random.normal(0, 0.5, outputs).astype(np.float32)
        numbers.append(f"{name}.bias")
    layer = Layer(
        name, "linear", name, numbers[0], numbers[1] if bias else None, inputs, outputs, allowed(inputs, outputs)
    )
    make.layers.append(layer)
    return make.add("Gemm", [x, *numbers], name, transB=1)


def make_mlp(seed: int = 0, widths: Tuple[int, ...] = (64, 96, 32)) -> Supernet:
    """linear → norm → ReLU → shuffle, again and again, then a dense classifier."""
    make = SupernetBuilder(seed)
    x, inputs = make.add("Flatten", ["input"], "rows", axis=1), SIZE * SIZE
    for number, width in enumerate(widths):
        name = f"fc{number}"
        x = linear(make, x, name, inputs, width, bias=number == 1)
        x = make.add("Relu", [make.norm(x, f"{name}.bn", width, layer=name)], f"{name}.relu")
        if number < len(widths) - 1:
            x = make.shuffle(x, f"{name}.shuffle", width)
        inputs = width
    return _classified(make, x, inputs)


def make_residual_mlp(seed: int = 0) -> Supernet:
    """The same with a sum over two layers: what its first layer makes is read twice, as a row and as an image."""
    make = SupernetBuilder(seed)
    x = linear(make, make.add("Flatten", ["input"], "rows", axis=1), "fc0", SIZE * SIZE, 64)
    x = make.add("Relu", [make.norm(x, "fc0.bn", 64, layer="fc0")], "fc0.relu")
    y = make.add("Relu", [make.norm(linear(make, x, "fc1", 64, 32), "fc1.bn", 32, layer="fc1")], "fc1.relu")
    y = make.shuffle(y, "shuffle", 32)
    y = make.norm(linear(make, y, "fc2", 32, 64), "fc2.bn", 64, layer="fc2")
    return _classified(make, make.add("Relu", [make.add("Add", [x, y], "add")], "sum"), 64)


def make_grouped_classifier(seed: int = 0) -> Supernet:
    """A grouped convolution, pooling, a shuffle and a weight-enabled classifier whose answers are the model's."""
    make = SupernetBuilder(seed)
    x = make.conv("input", "stem", 1, 32, kernel=3, switched=False)
    x = make.norm(make.conv(x, "conv", 32, 32), "conv.bn", 32, layer="conv")
    x = make.add("GlobalAveragePool", [make.add("Relu", [x], "relu")], "pool")
    x = make.shuffle(make.add("Flatten", [x], "flat", axis=1), "shuffle", 32)
    return make.supernet(linear(make, x, "classifier", 32, CLASSES, bias=True))


def _classified(make: SupernetBuilder, x: str, inputs: int) -> Supernet:
    make.weights["head.weight"] = make.random.normal(0, inputs**-0.5, (CLASSES, inputs)).astype(np.float32)
    make.weights["head.bias"] = make.random.normal(0, 0.1, CLASSES).astype(np.float32)
    return make.supernet(make.add("Gemm", [x, "head.weight", "head.bias"], "head", transB=1))
