"""Small supernets and bundles made with NumPy and onnx alone, for tests that must run without torch."""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from wenet_runtime.bundle import (
    FORMAT,
    FORMAT_VERSION,
    GOLDEN,
    TOPOLOGY,
    WEIGHTS,
    Accuracy,
    Layer,
    Manifest,
    Mode,
    Norm,
    NormPattern,
    Preprocess,
    Shuffle,
    TensorSpec,
)
from wenet_runtime.bundle_files import write_bundle
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, materialize

CLASSES = 10
SIZE = 8
MAX_BATCH = 8


class SupernetBuilder:
    """Collects nodes, numbers and manifest entries of one supernet."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: List[NodeProto] = []
        self.weights: Dict[str, NDArray[Any]] = {}
        self.layers: List[Layer] = []
        self.norms: List[Norm] = []
        self.shuffles: List[Shuffle] = []

    def add(self, kind: str, inputs: List[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    def conv(
        self, x: str, name: str, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, switched: bool = True
    ) -> str:
        weight = self.random.normal(0, (inputs * kernel * kernel) ** -0.5, (outputs, inputs, kernel, kernel))
        self.weights[f"{name}.weight"] = weight.astype(np.float32)
        out = self.add(
            "Conv",
            [x, f"{name}.weight"],
            name,
            group=1,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        )
        if switched:
            self.layers.append(
                Layer(name, "conv", name, f"{name}.weight", None, inputs, outputs, allowed(inputs, outputs))
            )
        return out

    def depthwise(self, x: str, name: str, channels: int) -> str:
        self.weights[f"{name}.weight"] = self.random.normal(0, 0.4, (channels, 1, 3, 3)).astype(np.float32)
        return self.add("Conv", [x, f"{name}.weight"], name, group=channels, kernel_shape=[3, 3], pads=[1] * 4)

    def norm(self, x: str, name: str, channels: int, *, layer: Optional[str] = None) -> str:
        groups = next((one.groups for one in self.layers if one.name == layer), (1,))
        patterns: Dict[int, NormPattern] = {}
        for count in groups:
            prefix = f"{name}.{count}"
            patterns[count] = NormPattern(*(f"{prefix}.{part}" for part in ("weight", "bias", "mean", "var")))
            for part, low, high in (("weight", 0.5, 1.5), ("bias", -0.5, 0.5), ("mean", -0.5, 0.5), ("var", 0.5, 2.0)):
                self.weights[f"{prefix}.{part}"] = self.random.uniform(low, high, channels).astype(np.float32)
        self.norms.append(Norm(name, layer, 1e-5, patterns))
        full = patterns[1]
        return self.add("BatchNormalization", [x, full.weight, full.bias, full.mean, full.var], name, epsilon=1e-5)

    def shuffle(self, x: str, name: str, channels: int, groups: int = 16) -> str:
        self.shuffles.append(Shuffle(name, channels, groups))
        return self.add("Gather", [x, f"{name}.order"], name, axis=1)

    def supernet(self, output: str) -> Supernet:
        shuffle_inputs = [
            helper.make_tensor_value_info(f"{one.node}.order", TensorProto.INT64, [one.channels])
            for one in self.shuffles
        ]
        weight_inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(value.shape))
            for name, value in self.weights.items()
        ]
        image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, SIZE, SIZE])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
        self.nodes[-1].output[0] = "logits"
        assert output == f"{self.nodes[-1].name}.out"
        graph = helper.make_graph(self.nodes, "topology", [image, *weight_inputs, *shuffle_inputs], [logits])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 7
        onnx.checker.check_model(model)
        return Supernet(
            topology=model.SerializeToString(),
            inputs=(TensorSpec("input", "FP32", (-1, 1, SIZE, SIZE)),),
            layers=tuple(self.layers),
            norms=tuple(self.norms),
            shuffles=tuple(self.shuffles),
            weights=self.weights,
        )


def allowed(inputs: int, outputs: int) -> Tuple[int, ...]:
    """Powers of two up to 16 that divide both."""
    return tuple(groups for groups in (1, 2, 4, 8, 16) if inputs % groups == 0 and outputs % groups == 0)


def make_supernet(seed: int = 0) -> Supernet:
    """A residual network with an inverted residual (depthwise), a bottleneck with a downsample and a grouped head."""
    make = SupernetBuilder(seed)
    x = make.conv("input", "stem", 1, 32, kernel=3, switched=False)
    x = make.add("Relu", [make.norm(x, "stem.bn", 32)], "stem.relu")
    # inverted residual: expansion, shuffle, depthwise switched by the expansion, projection
    y = make.conv(x, "a.expand", 32, 64)
    y = make.add("Relu", [make.norm(y, "a.expand.bn", 64, layer="a.expand")], "a.expand.relu")
    y = make.shuffle(y, "a.shuffle", 64)
    y = make.depthwise(y, "a.depthwise", 64)
    y = make.add("Relu", [make.norm(y, "a.depthwise.bn", 64, layer="a.expand")], "a.depthwise.relu")
    y = make.norm(make.conv(y, "a.project", 64, 32), "a.project.bn", 32, layer="a.project")
    x = make.add("Add", [x, y], "a.add")
    # bottleneck with stride
    y = make.conv(x, "b.conv1", 32, 32)
    y = make.add("Relu", [make.norm(y, "b.bn1", 32, layer="b.conv1")], "b.relu1")
    y = make.shuffle(y, "b.shuffle", 32)
    y = make.conv(y, "b.conv2", 32, 32, kernel=3, stride=2)
    y = make.add("Relu", [make.norm(y, "b.bn2", 32, layer="b.conv2")], "b.relu2")
    y = make.norm(make.conv(y, "b.conv3", 32, 64), "b.bn3", 64, layer="b.conv3")
    down = make.norm(make.conv(x, "b.down", 32, 64, stride=2), "b.down.bn", 64, layer="b.down")
    x = make.add("Relu", [make.add("Add", [y, down], "b.add")], "b.relu3")
    # head: a weight-enabled linear layer of 64 → 16, then the dense classifier
    x = make.add("Flatten", [make.add("GlobalAveragePool", [x], "pool")], "flatten", axis=1)
    for name, inputs, outputs in (("hidden", 64, 16), ("classifier", 16, CLASSES)):
        weight = make.random.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32)
        make.weights[f"{name}.weight"] = weight
        make.weights[f"{name}.bias"] = make.random.normal(0, 0.1, outputs).astype(np.float32)
        x = make.add("Gemm", [x, f"{name}.weight", f"{name}.bias"], name, transB=1)
        if name == "hidden":
            make.layers.append(
                Layer(name, "linear", name, f"{name}.weight", f"{name}.bias", inputs, outputs, allowed(inputs, outputs))
            )
    return make.supernet(x)


def bottlenecks(*widths: int, channels: int = 32) -> Supernet:
    """Residual blocks of two 1×1 layers around a shuffle, equal but for their width."""
    make = SupernetBuilder(0)
    x = make.add("Relu", [make.norm(make.conv("input", "stem", 1, channels, switched=False), "n", channels)], "r")
    for number, width in enumerate(widths):
        y = make.norm(make.conv(x, f"{number}.a", channels, width), f"{number}.an", width, layer=f"{number}.a")
        y = make.shuffle(make.add("Relu", [y], f"{number}.ar"), f"{number}.s", width)
        y = make.norm(make.conv(y, f"{number}.b", width, channels), f"{number}.bn", channels, layer=f"{number}.b")
        x = make.add("Relu", [make.add("Add", [x, y], f"{number}.add")], f"{number}.out")
    x = make.add("Flatten", [make.add("GlobalAveragePool", [x], "pool")], "flat", axis=1)
    make.weights["head"] = np.ones((10, channels), np.float32)
    return make.supernet(make.add("Gemm", [x, "head"], "fc", transB=1))


def uniform(supernet: Supernet, groups: int) -> Dict[str, int]:
    """Every layer at `groups`, clipped to what it allows."""
    return {layer.name: max(one for one in layer.groups if one <= groups) for layer in supernet.layers}


def random_groups(supernet: Supernet, seed: int) -> Dict[str, int]:
    """A random configuration."""
    choose = np.random.default_rng(seed)
    return {layer.name: int(choose.choice(layer.groups)) for layer in supernet.layers}


def random_statistics(supernet: Supernet, groups: Mapping[str, int], seed: int) -> Dict[str, NDArray[Any]]:
    """Means and variances other than the supernet's, for the active patterns."""
    choose = np.random.default_rng(seed)
    found: Dict[str, NDArray[Any]] = {}
    for norm in supernet.norms:
        pattern = norm.patterns[groups[norm.layer] if norm.layer is not None else 1]
        size = supernet.weights[pattern.mean].shape
        found[pattern.mean] = choose.uniform(-0.5, 0.5, size).astype(np.float32)
        found[pattern.var] = choose.uniform(0.5, 2.0, size).astype(np.float32)
    return found


def run(model: bytes, images: NDArray[Any]) -> NDArray[Any]:
    """The logits of a plain model under ONNX Runtime, (batch, classes)."""
    engine = OrtBackend().load_bytes(model, name="test")
    try:
        return engine.infer({"input": images})["logits"]
    finally:
        engine.close()


def images(rows: int, seed: int = 0) -> NDArray[Any]:
    """Random inputs, (rows, 1, 8, 8)."""
    return np.random.default_rng(seed).normal(size=(rows, 1, SIZE, SIZE)).astype(np.float32)


def write_test_bundle(path: Path, seed: int = 0, levels: Tuple[int, ...] = (16, 4, 1)) -> str:
    """Write a complete bundle of `make_supernet` with one uniform mode a level, m0 the cheapest.

    Accuracies and MACs are invented, rising from m0 on. Returns the bundle's SHA-256.
    """
    supernet = make_supernet(seed)
    golden: Dict[str, NDArray[Any]] = {"input.input": images(2, seed)}
    modes: List[Mode] = []
    files: Dict[str, bytes] = {TOPOLOGY: supernet.topology, WEIGHTS: safetensors(supernet.weights)}
    for number, level in enumerate(levels):
        groups = uniform(supernet, level)
        statistics = random_statistics(supernet, groups, seed + number)
        name = f"modes/m{number}.safetensors"
        files[name] = safetensors(statistics)
        golden[f"m{number}.logits"] = run(materialize(supernet, groups, statistics, fold=False), golden["input.input"])
        value = 0.80 + 0.05 * number
        accuracy = Accuracy(value, value - 0.01, value + 0.01, 1000)
        modes.append(
            Mode(f"m{number}", groups, "fp32", accuracy, 200_000 * (number + 1), 5_000 * (number + 1), "uniform", name)
        )
    files[GOLDEN] = safetensors(golden)
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        model="tiny",
        inputs=supernet.inputs,
        outputs=(TensorSpec("logits", "FP32", (-1, CLASSES)),),
        preprocess=Preprocess("L", SIZE, SIZE, (0.5,), (0.25,)),
        labels=tuple(str(digit) for digit in range(CLASSES)),
        max_batch=MAX_BATCH,
        layers=supernet.layers,
        norms=supernet.norms,
        shuffles=supernet.shuffles,
        modes=tuple(modes),
        created_by={"tests": "1"},
    )
    return write_bundle(path, manifest, files)


def safetensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    from safetensors.numpy import save

    return save(dict(tensors))
